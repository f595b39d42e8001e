"""The summary of a run at the end of a session."""

from __future__ import annotations

import distgan
from distgan.health.remedies import warning
from distgan.metrics.measures import higher_is_better
from distgan.metrics.statistics_file import RealStatistics
from distgan.training.checkpoints import checkpoint_name
from distgan.training.early_stopping import Judgement
from distgan.training.events import StopReason, Summary
from distgan.training.job import Job
from distgan.training.meter import Meter
from distgan.training.state import TrainingState


def summarise(
    job: Job,
    state: TrainingState,
    meter: Meter,
    judgement: Judgement,
    reason: StopReason,
    *,
    metric: str,
    real: RealStatistics,
    best_checkpoint: str | None,
    resumed_at_kimg: float,
) -> Summary:
    """What the run has come to.

    The checkpoint of its last step is there; `real` has the floor of the Fréchet distance, `best_checkpoint` is the
    best one that is kept.
    """
    config, progress = job.config, state.progress
    best, latest, seconds = judgement.best, judgement.latest, meter.seconds()
    has_floor = config.evaluation.monitor == "frechet"
    return Summary(
        name=job.name,
        metric=metric,
        reason=reason,
        kimg=progress.kimg,
        budget_kimg=config.training.kimg,
        steps=progress.step,
        untrained=judgement.untrained,
        best=best.value if best else None,
        best_kimg=best.kimg if best else None,
        latest=latest.value if latest else None,
        latest_kimg=latest.kimg if latest else None,
        floor=real.floor if has_floor else None,
        floor_images=real.floor_images if has_floor else None,
        without_improvement=judgement.without_improvement,
        best_checkpoint=best_checkpoint,
        last_checkpoint=checkpoint_name(progress.step),
        workers=state.workers,
        resumed_at_kimg=resumed_at_kimg,
        images_per_second=meter.mean_images_per_second(),
        seconds=seconds,
        run_seconds=state.run_seconds(seconds["total"]),
        bad_samples=progress.bad_samples if config.data.bad_samples == "skip" else None,
        distgan=distgan.__version__,
        given=progress.given,
        higher_is_better=higher_is_better(config.evaluation.monitor),
        health=[warning(ill, spell, config) for ill, spell in progress.health.spells.items()],
    )
