"""The training loop. `training.train` builds the parts that it works with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Event as Flag

from distgan.config.plugins import error_text
from distgan.config.schedule import find_schedules
from distgan.data.batch_memory import DecodedSamples
from distgan.data.dataset import Dataset, check_bad_samples
from distgan.data.kept import Kept
from distgan.data.order import Order
from distgan.data.reads import read_metrics
from distgan.data.stream import BatchStream
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.storage.retry import Retry
from distgan.training.adaptive_augmentation import sign_accuracy
from distgan.training.checkpoints import CheckpointStore, checkpoint_name
from distgan.training.divergence import DivergenceGuard
from distgan.training.events import (
    CheckpointSaved,
    EvaluationResult,
    Event,
    Notice,
    PhaseStarted,
    Reporter,
    RunFinished,
    StepMetrics,
    StopReason,
    Summary,
)
from distgan.training.fakes import SampleGrid
from distgan.training.health import WINDOW, FailureMode
from distgan.training.health_advice import warning
from distgan.training.held_out import HeldOutImages
from distgan.training.inputs import RealBatch
from distgan.training.meter import Meter, summarize
from distgan.training.process import peak_memory, share_of_processors
from distgan.training.profiling import StepProfiler, span
from distgan.training.progress import due
from distgan.training.run_evaluator import RunEvaluator
from distgan.training.run_spec import RunSpec
from distgan.training.state import TrainingState
from distgan.training.step import Step

# Ranks agree that often on whether to save, where steps are long enough; else at each row of metrics.
_AGREE_S = 2.0


@dataclass
class Trainer:
    """A session of a run on one worker: continues from `state` until the run stops.

    Every rank executes the same steps. What rank 0 alone knows or measures is broadcast.

    Attributes:
        last_checkpoint: name of the newest checkpoint that is complete or will be, if the run has one.
        is_continuation: whether the run begins with the whole state of another run.
        start_events: reported before the first step.
        finishing: set while the final state is saved. Storage is then waited for even if a stop is requested.
        held_out: held-out real images, if the run has any.
        profiler: on rank 0, if the run is profiled.
        decoded: samples that this process keeps for its next run.
    """

    spec: RunSpec
    distributed: Distributed
    reporter: Reporter
    meter: Meter
    dataset: Dataset
    state: TrainingState
    step: Step
    evaluator: RunEvaluator
    checkpoints: CheckpointStore
    guard: DivergenceGuard
    grid: SampleGrid
    last_checkpoint: str | None
    is_continuation: bool
    start_events: Sequence[Event]
    finishing: Flag
    held_out: HeldOutImages | None = None
    profiler: StepProfiler | None = None
    decoded: Kept[DecodedSamples] | None = None

    def __post_init__(self) -> None:
        self.config = self.spec.config
        self.schedules = dict(find_schedules(self.config))
        self.resumed_at_kimg = self.state.progress.kimg
        self._sign_accuracy = sign_accuracy(self.step.objective)
        self._set_augmentation()
        # Retries of this process that are counted, and those of all workers in this session.
        self._counted_retries, self._retries = Retry.count, 0
        self._last_save_s = self.meter.elapsed()
        self._save_due = self._save_told = False
        self._agree_every, self._images_per_step = self.config.training.log_every, 0
        # Whether the state is that of a whole step, with nothing left to do at it but to save it.
        self._savable = False

    def run(self) -> Summary:
        """Trains until the run ends, for one of `events.StopReason`.

        They are its budget of images or minutes, early stopping, a failure mode with `health.stop`, and a request.
        """
        config, progress = self.config, self.state.progress
        budget = round(config.training.kimg * 1000)
        self._report(*self.start_events)
        if self.last_checkpoint is None:
            self._show_real_images()
        if self.is_continuation:
            self._save_checkpoint()  # the run can then be resumed and sampled by itself
        if config.evaluation.at_start and progress.step == 0 and not progress.evaluations and not progress.pending:
            self._evaluate(last=False)
        early_stop, stop = self._early_stop(), None
        with closing(self._open_batches()) as batches:
            while early_stop is None and stop is None and progress.images < budget:
                before = progress.images
                self._train_step(batches)
                if progress.step % WINDOW == 0:
                    self._sync_metrics()
                    # Health takes logarithms, whose last bit depends on the processor.
                    progress.health = self.distributed.broadcast(progress.health)
                    self._follow_overfitting()
                if progress.step % config.training.log_every == 0:
                    stop = self._log_step()
                elif progress.step % self._agree_every == 0:
                    self._save_due |= self.distributed.broadcast(self._save_requested())
                # What is due at this step is done before a stop: a resumed run begins with the next step.
                last = progress.images >= budget or stop == "time" or self._failure() is not None
                if last or due(before, progress.images, config.evaluation.every_kimg):
                    every = config.training.samples_every_kimg
                    self._evaluate(last=last, samples=last or every is None or due(before, progress.images, every))
                    early_stop = self._early_stop()
                else:
                    self._save_if_due(before)
        if early_stop is None and stop is not None and progress.images < budget:
            return self._finish(stop)
        return self._finish(early_stop or "budget")

    def _open_batches(self) -> BatchStream:
        config, index = self.config, self.dataset.index
        return BatchStream(
            self.dataset,
            Order(index, config.seed, config.data.streams, config.data.window_blocks),
            groups=self.step.groups.local,
            num_groups=config.scale.groups,
            batch_size=config.training.batch_size,
            start_batch=self.state.progress.batches,
            memory_bytes=config.data.memory_mb * 2**20,
            prefetch_batches=config.data.prefetch_batches,
            decode_threads=config.data.decode_threads or share_of_processors(self.distributed),
            gpu=self.distributed.device if self.distributed.device.type == "cuda" else None,
            kept=self.decoded,
        )

    def _train_step(self, batches: BatchStream) -> None:
        """The updates of both networks and of the moving average."""

        def next_batch() -> RealBatch:
            with self.meter.phase("data wait"):
                groups = batches.next()
            self._savable = False
            self.meter.count(bad_samples=sum(group.bad_samples for group in groups))
            return groups

        progress = self.state.progress
        self._savable = self.distributed.size == 1  # others may have stopped elsewhere
        with self.meter.phase("training"):
            terms = self.step.run(next_batch, progress.discriminator_updates, progress.step)
            images = progress.advance(self.config, self.step.batches_per_step)
            with span("average"):
                self.state.ema.update(self.state.networks.generator, progress.images, images)
        if self.profiler is not None:
            self.profiler.step()
        self.meter.add_step(terms.values, images, terms.groups)
        self._images_per_step = images

    def _sync_metrics(self) -> None:
        """All-reduces the metrics since the last call and checks them. Collective.

        Raises UserError, on every rank, for losses that are not finite and for too many bad samples.
        """
        retries = Retry.count
        self.meter.count(**self.dataset.reader.counts.take(), retries=retries - self._counted_retries)
        self._counted_retries = retries
        terms, counts = self.meter.sync_metrics(self.distributed)
        progress = self.state.progress
        self.guard.check_losses(terms, progress)
        self._retries += counts["retries"]
        progress.bad_samples += counts["bad_samples"]
        check_bad_samples(progress.bad_samples, self.config.data)
        if progress.augmentation is not None:
            progress.augmentation.add_steps(terms, self._sign_accuracy)
        chance_loss = self.step.objective.chance_loss
        self._warn(progress.health.add_steps(terms, progress.step, progress.images, chance_loss))

    def _follow_overfitting(self) -> None:
        """Measures the gap between training and held-out images, and adapts the augmentation. Collective."""
        progress, gap = self.state.progress, None
        if self.held_out is not None:
            with self.meter.phase("held-out images"):
                progress.gap = gap = self.held_out.gap(progress.step, progress.images)
            self._warn(progress.health.add_gap(gap, progress.step, progress.images))
        if progress.augmentation is not None:
            images = WINDOW * self.config.objective.critic_steps * self.config.training.batch_size
            progress.augmentation.end_window(self.config, images, progress.kimg, gap)
            self._set_augmentation()

    def _set_augmentation(self) -> None:
        """Gives the step the adapted probability."""
        adapted = self.state.progress.augmentation
        if adapted is not None and self.step.adapted_probability is not None:
            self.step.adapted_probability.value = adapted.probability

    def _check_state(self) -> None:
        """Raises UserError, on every rank, where losses or the state itself are not finite."""
        self._sync_metrics()
        self.guard.check_state(self.state)

    def _log_step(self) -> StopReason | None:
        """Reports the metrics of the last steps. Returns "interrupted" or "time" if the run has to stop.

        Also starts a pending asynchronous evaluation, once its checkpoint is complete, and decides whether a checkpoint
        is due by time or by request.
        """
        self._sync_metrics()
        metrics, images_per_second, data_wait_s, counts = self.meter.take()
        progress, training = self.state.progress, self.config.training
        rates = self.state.optimizers.learning_rates(progress.kimg)
        metrics |= {f"learning_rate/{name}": rate for name, rate in rates.items()}
        metrics |= {f"schedule/{key}": schedule.at(progress.kimg) for key, schedule in self.schedules.items()}
        if self.held_out is not None and progress.gap is not None:
            metrics["overfitting/gap"] = progress.gap
        if progress.augmentation is not None:
            metrics["augmentation/probability"] = progress.augmentation.probability
        if self.config.data.bad_samples == "skip":
            metrics["data/bad_samples"] = progress.bad_samples
        if self._retries:
            metrics["storage/retries"] = self._retries
        if self.checkpoints.skipped:
            metrics["checkpoint/skipped"] = self.checkpoints.skipped
        measured = {"seconds/data_wait": round(data_wait_s, 6)} | read_metrics(counts)
        measured |= peak_memory(self.distributed.device)
        self._report(StepMetrics(progress.step, progress.kimg, images_per_second, metrics, measured))
        stop: StopReason | None = None
        if self.distributed.rank == 0:
            if self.reporter.stop_requested():
                stop = "interrupted"
            elif training.max_minutes is not None and self.meter.elapsed() >= 60 * training.max_minutes:
                stop = "time"
        every = self.config.checkpoint.every_minutes
        late = every is not None and self.meter.elapsed() - self._last_save_s >= 60 * every
        stop, can_start, self._save_due, self._agree_every = self.distributed.broadcast(
            (
                stop,
                self.evaluator.can_start,
                self._save_requested() or late or self._save_due,
                max(1, int(_AGREE_S * images_per_second / self._images_per_step)),
            )
        )
        if can_start:
            with self.meter.phase("evaluation"):
                self.evaluator.start()
        return stop

    def _save_requested(self) -> bool:
        """Whether a checkpoint is asked for, of which the run tells. Always False but on rank 0."""
        reason = self.reporter.save_requested() if self.distributed.rank == 0 else None
        if reason is not None:
            self._save_told = True
            self._report(Notice(f"{reason}; the state of step {self.state.progress.step:,} is saved"))
        return reason is not None

    def _evaluate(self, *, last: bool, samples: bool = True) -> None:
        """Evaluates the averaged generator, now or asynchronously, and saves the state, and samples if they are due.

        Asynchronous scores are recorded here, one evaluation later; the `last` evaluation is never asynchronous.
        """
        self._check_state()
        evaluator, results = self.evaluator, []
        pending = self.state.progress.pending
        with self.meter.phase("evaluation"):
            finished = evaluator.finish_pending()
        if pending is not None and finished is None:
            name = checkpoint_name(pending.step)
            self._report(Notice(f"{name} is gone or damaged: the run has no evaluation of it, where it was pending"))
        if finished is not None:
            self._report_evaluation(finished)
            results.append(finished)
        if last or not evaluator.is_async:
            self._report(PhaseStarted("evaluation", self.state.progress.kimg))
            with self.meter.phase("evaluation"):
                result = evaluator.evaluate()
            self._report_evaluation(result)
            results.append(result)
        elif self._early_stop() is None:
            evaluator.schedule()
        if samples:
            self._save_samples()
        self._save_checkpoint(required=last)
        for result in results:
            self.reporter.evaluated(result)

    def _report_evaluation(self, result: EvaluationResult) -> None:
        progress = self.state.progress
        self._report(result)
        if result.diversity is not None:
            self._warn(progress.health.add_diversity(result.diversity, result.step, progress.images))

    def _early_stop(self) -> StopReason | None:
        """Why the run ends before its budget, if it does: early stopping, or a failure mode with `health.stop`."""
        return self.evaluator.status.stop_reason or self._failure()

    def _failure(self) -> FailureMode | None:
        ongoing = self.state.progress.health.ongoing
        return ongoing[0] if ongoing and self.config.health.stop else None

    def _save_if_due(self, before: int) -> None:
        """Saves samples and the state if a multiple of their interval lies after `before` images, or as agreed."""
        images = self.state.progress.images
        samples_every, every = self.config.training.samples_every_kimg, self.config.checkpoint.every_kimg
        samples_due = samples_every is not None and due(before, images, samples_every)
        checkpoint_due = self._save_due or (every is not None and due(before, images, every))
        if samples_due or checkpoint_due:
            self._check_state()
        if samples_due:
            self._save_samples()
        if checkpoint_due:
            self._save_checkpoint(required=False)

    def _show_real_images(self) -> None:
        """Reports real images in the layout of the samples, at the beginning of a run. Never fails."""
        if self.distributed.rank != 0:
            return
        try:
            with self.meter.phase("samples"):
                images = self.grid.real_images(self.dataset, self.config.seed)
                self.reporter.real_images(images, self.grid.columns, self.grid.column_names(self.state.classes))
        except Exception as error:  # noqa: BLE001 - training continues
            reason = str(error) if isinstance(error, UserError) else error_text(error)
            self._report(Notice(f"no picture of real images: {reason}; training continues without it"))

    def _save_samples(self) -> None:
        if self.distributed.rank != 0:
            return
        with self.meter.phase("samples"):
            progress, images = self.state.progress, self.grid.images(self.state.ema.network)
            names = self.grid.column_names(self.state.classes)
            self.reporter.samples(progress.step, progress.kimg, images, self.grid.columns, names)

    def _save_checkpoint(self, *, required: bool = True) -> None:
        """Starts writing a checkpoint in the background, on rank 0, after the metrics of its steps.

        One that is not `required`, and that no line has announced, is left out where storage is too slow for it.
        """
        required |= self._save_told
        self._save_due = self._save_told = False
        self._savable = True
        if self.distributed.rank != 0:
            return
        progress = self.state.progress
        event = CheckpointSaved(progress.step, progress.kimg, checkpoint_name(progress.step))
        with self.meter.phase("checkpoint"):
            done, seconds, first = lambda: self.reporter.event(event), self.meter.elapsed(), self.reporter.flush()
            if self.state.save(self.checkpoints, done, seconds, first, required=required):
                self.last_checkpoint = event.name
        self._last_save_s = self.meter.elapsed()

    def save_at_error(self) -> None:
        """After an error of the storage: saves the state, without waiting, or keeps it on this machine."""
        with suppress(UserError):
            self.checkpoints.cancel()
            self.checkpoints.wait()
        with suppress(UserError):
            step = checkpoint_name(self.state.progress.step)
            if self._savable and self.last_checkpoint != step:
                if self.distributed.size == 1:
                    self._check_state()
                self._save_checkpoint()
                self.checkpoints.wait()

    def _finish(self, reason: StopReason) -> Summary:
        """Saves the final state, if it is not saved yet, and reports the summary."""
        self.finishing.set()
        self._check_state()
        self._savable = True
        if self.distributed.rank == 0:
            if self.last_checkpoint != checkpoint_name(self.state.progress.step):
                self._save_checkpoint()
            with self.meter.phase("checkpoint"):
                self.checkpoints.wait()
        best = self.evaluator.best_checkpoint() if self.distributed.rank == 0 else None
        summary = summarize(
            self.spec, self.state, self.meter, self.evaluator.status, reason,
            metric=self.evaluator.metric,
            real=self.evaluator.real,
            best_checkpoint=self.distributed.broadcast(best),
            resumed_at_kimg=self.resumed_at_kimg,
        )  # fmt: skip
        with self.meter.phase("end"):  # uploads may take long
            if self.profiler is not None:
                self._report(self.profiler.finish())
            self._report(RunFinished(summary))
        return summary

    def _warn(self, modes: list[FailureMode]) -> None:
        episodes = self.state.progress.health.episodes
        self._report(*(warning(mode, episodes[mode], self.config) for mode in modes))

    def _report(self, *events: Event) -> None:
        if self.distributed.rank == 0:
            for event in events:
                self.reporter.event(event)
