"""Ways to use more workers, and how far they go."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.scale.machine import Machine
from benchmarks.scale.predict import predict
from benchmarks.scale.run import Run


def strong(run: Run, workers: int) -> Run:
    """The same batch on more workers: as many groups and streams as they need.

    Raises ValueError where a batch has not as many images.
    """
    if workers > run.batch:
        raise ValueError(f"{run.name}: {workers} workers, and a batch of {run.batch} images")
    return replace(run, groups=max(run.groups, workers), streams=max(run.streams, workers))


def weak(run: Run, workers: int) -> Run:
    """The preset's whole batch, in its groups, on each worker: `workers` times as many images a step.

    Evaluations stay as many images apart, and so come after fewer steps.
    """
    return replace(
        run,
        batch=run.batch * workers,
        groups=run.groups * workers,
        streams=max(run.streams, run.groups * workers),
        real_images=run.real_images * workers,
        counted_images=run.counted_images * workers,
    )


def weak_by_steps(run: Run, workers: int) -> Run:
    """As `weak`, with as many steps between two evaluations as one worker has: `every_kimg` grows with the workers."""
    return replace(weak(run, workers), every_images=run.every_images * workers)


SCALINGS = {"strong": strong, "weak": weak, "weak-by-steps": weak_by_steps}


@dataclass(frozen=True)
class Limit:
    """How far a run scales by doublings of its workers.

    Attributes:
        workers: the most that each still make half of what one alone makes.
        reason: the part that costs most with twice as many workers; `batch` where the batch has no more images than
            workers, `1,024` where nothing stops it up to there.
    """

    workers: int
    reason: str


def limit(run: Run, machine: Machine, scaling: str, most: int = 1024) -> Limit:
    """Where a run's efficiency falls below a half."""
    one, workers = predict(run, machine, 1), 1
    while workers < most:
        if scaling == "strong" and 2 * workers > run.batch:
            return Limit(workers, "batch")
        more = predict(SCALINGS[scaling](run, 2 * workers), machine, 2 * workers)
        if more.efficiency(one) < 0.5:
            losses = more.losses(one)
            return Limit(workers, max(losses, key=lambda part: losses[part]))
        workers *= 2
    return Limit(workers, f"{most:,}")
