"""The training loop, whole: from a job and a world of workers to a summary."""

from __future__ import annotations

from contextlib import closing

from distgan.config.plugins import own_names
from distgan.data.dataset import Dataset, check_bad_samples
from distgan.data.order import Order
from distgan.data.stream import BatchStream
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Evaluator
from distgan.storage.retry import Retry
from distgan.storage.storage import Storage
from distgan.training.checkpoints import Checkpoint, CheckpointStore, checkpoint_name
from distgan.training.data_checks import check_data, few_images
from distgan.training.divergence import DivergenceGuard
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.events import (
    CheckpointSaved,
    EvaluationResult,
    Notice,
    Reporter,
    RunFinished,
    RunStarted,
    StepMetrics,
    StopReason,
    Summary,
    Verdict,
)
from distgan.training.fakes import SampleGrid
from distgan.training.health import WINDOW, FailureMode
from distgan.training.health_advice import warning
from distgan.training.meter import Meter, summarise
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.process import choose_threads, crowding_load, prepare_process
from distgan.training.profiling import StepProfiler, span
from distgan.training.progress import Progress, due
from distgan.training.run_evaluator import AsyncEvaluator, RunEvaluator
from distgan.training.run_spec import RunSpec
from distgan.training.starting_point import LAST, find_checkpoint
from distgan.training.state import TrainingState, check_continuable, check_resumable
from distgan.training.step import RealBatch, Step


def train(
    job: RunSpec, distributed: Distributed, reporter: Reporter, validation: AsyncEvaluator | None = None
) -> Summary:
    """Trains from the newest checkpoint, or from the beginning, to the end; called on every rank alike.

    With `validation`, evaluations are made aside: result k is applied at evaluation k + 1, and the last is made here.
    """
    session = Trainer(job, distributed, reporter, validation)
    try:
        return session.run()
    except KeyboardInterrupt:
        session.checkpoints.give_up()
        raise
    finally:
        session.checkpoints.settle()


class Trainer:
    """One uninterrupted stretch of a run on one worker."""

    def __init__(
        self, job: RunSpec, distributed: Distributed, reporter: Reporter, validation: AsyncEvaluator | None = None
    ) -> None:
        config = job.config
        self.job, self.config, self.distributed, self.reporter = job, config, distributed, reporter
        if distributed.size > config.scale.groups:
            raise UserError(
                f"{distributed.size} workers were started, but scale.groups={config.scale.groups} and each needs a "
                f"group; start at most {config.scale.groups} or raise scale.groups (this changes the recipe)"
            )
        self.meter = Meter()
        self.ending = False
        self.retry = Retry(self._notice, self._stop_waiting)
        self.own = own_names(config.model_dump(mode="json"))
        # A state that is being saved is not given up at the first wish to stop.
        self.checkpoints = CheckpointStore(
            job.run, self.own, reading=self.retry, writing=Retry(self._notice), say=self._notice
        )
        # Rank 0 decides which checkpoint is the newest: storage may change while the others look.
        found: list[Checkpoint] = []

        def find_newest() -> str | None:
            found.extend(filter(None, [self.checkpoints.newest()]))
            return found[0].manifest.name if found else None

        newest = distributed.from_rank_0(find_newest)
        resumed = self._load(newest) if newest is not None and not found else next(iter(found), None)
        continued = self._load_continued() if resumed is None else None
        begun = resumed or continued

        threads = distributed.broadcast(
            choose_threads(config.scale.threads, distributed, begun.manifest if begun else None)
        )
        self.crowding_load = crowding_load(threads, distributed)
        prepare_process(threads, distributed.device)
        self.decoder = Dataset.open(config.data, config.image_shape, Retry(self._notice, self._stop_waiting))
        self.index = self.decoder.index
        check_data(config, self.index)

        networks = build_networks(config, distributed.device)
        self.state = TrainingState(
            config=config,
            networks=networks,
            ema=ExponentialMovingAverage(networks.generator, config.ema),
            optimizers=build_optimizers(config.optimizer, networks.generator, networks.discriminator),
            progress=Progress(),
            data_hash=self.index.hash,
            workers=distributed.size,
            threads=threads,
            classes=self.index.header.classes if config.num_classes is not None else [],
        )
        if resumed is not None:
            check_resumable(resumed.manifest, config, self.index.hash, job.run.url)
            self.state.restore(resumed)
        elif continued is not None:
            check_continuable(continued, config, self.index.hash)
            self.state.continue_from(continued)
        elif (initial := distributed.broadcast(job.init_from)) is not None:
            self.state.begin_from(find_checkpoint(initial, retry=self.retry))
        for damaged in resumed.passed_over if resumed is not None else ():
            self._notice(f"{damaged}; going on from {newest}")
        self.guard = DivergenceGuard(job, distributed, self.checkpoints)
        self.last_checkpoint = newest
        self.resumed, self.continued = resumed is not None, continued is not None
        self.resumed_at_kimg = self.state.progress.kimg
        self.step = Step(config, networks, build_objective(config), self.state.optimizers, distributed)
        self.step.warm_up()
        self.profiler = (
            StepProfiler(job.run, distributed.device, self._notice) if job.profile and distributed.rank == 0 else None
        )
        self.grid = SampleGrid(config, distributed.device)
        with self.meter.phase("real statistics"):
            storage = Storage.open(str(config.data.url))
            self.evaluator = Evaluator(config.evaluation, config.data, distributed, storage, self.decoder)
        self.run_evaluator = RunEvaluator(
            config, self.state, self.evaluator, self.index.labels, self.checkpoints, distributed, validation
        )
        self.meter.end_start()

    def run(self) -> Summary:
        """Trains until the budget is used, early stopping ends it, or somebody asks to stop."""
        config, progress = self.config, self.state.progress
        self._report_start()
        if self.continued:
            self._save_checkpoint()  # the run's own, to go on from and to sample
        budget = round(config.training.kimg * 1000)
        if progress.step == 0 and not progress.evaluations and not progress.pending and config.evaluation.at_start:
            self._evaluate(last=False)
        verdict, stop = self._verdict(), None
        with closing(self._open_batches()) as batches:

            def next_batch() -> RealBatch:
                with self.meter.phase("data wait"):
                    groups = batches.next()
                self.meter.count_bad_samples(sum(group.bad_samples for group in groups))
                return groups

            while stop is None and verdict is None and progress.images < budget:
                before = progress.images
                with self.meter.phase("training"):
                    terms = self.step.run(next_batch, progress.critic_updates, progress.step)
                    images = progress.advance(config, self.step.batches_per_step)
                    with span("average"):
                        self.state.ema.update(self.state.networks.generator, progress.images, images)
                if self.profiler is not None:
                    self.profiler.step()
                self.meter.count(terms, images, self.step.term_groups)
                if progress.step % WINDOW == 0:
                    self._meet()
                    progress.health = self.distributed.broadcast(
                        progress.health
                    )  # logarithms differ on unlike hardware
                stop = self._log_and_ask_to_stop() if progress.step % config.training.log_every == 0 else None
                ended = progress.images >= budget or stop == "time" or self._unhealthy() is not None
                # What is due at this step comes before a stop: a resume goes on with the next step.
                if due(before, progress.images, config.evaluation.every_kimg) or ended:
                    self._evaluate(last=ended)
                    verdict = self._verdict()
                else:
                    self._save_samples_and_checkpoint_if_due(before)
        if verdict is not None or stop is None or progress.images >= budget:
            return self._finish(verdict or "budget")
        return self._finish(stop)

    def _notice(self, text: str) -> None:
        if self.distributed.rank == 0:
            self.reporter.event(Notice(text))

    def _stop_waiting(self) -> bool:
        """Whether to wait no longer for storage that is away: somebody asks to stop, and no state is being saved."""
        return self.distributed.rank == 0 and not self.ending and self.reporter.stop_requested()

    def _load(self, name: str) -> Checkpoint:
        """The checkpoint that rank 0 found. Raises UserError where this rank cannot read it."""
        checkpoint = self.checkpoints.load(name)
        if checkpoint is None:
            raise UserError(
                f"{self.job.run.url}: worker {self.distributed.rank} cannot read checkpoint {name}, which worker 0 "
                f"found; --storage must be a folder or bucket that the machines of all workers share"
            )
        return checkpoint

    def _load_continued(self) -> Checkpoint | None:
        """The checkpoint of another run whose state this one takes over, where it is to."""
        url = self.distributed.broadcast(self.job.continue_from)
        return None if url is None else find_checkpoint(url, default=LAST, retry=self.retry, own=self.own)

    def _open_batches(self) -> BatchStream:
        config = self.config
        return BatchStream(
            self.decoder,
            Order(self.index, config.seed, config.data.streams, config.data.window_blocks),
            groups=self.step.groups.local,
            num_groups=config.scale.groups,
            batch_size=config.training.batch_size,
            start_batch=self.state.progress.batches,
            memory_bytes=config.data.memory_mb * 2**20,
            prefetch_batches=config.data.prefetch_batches,
        )

    def _report_start(self) -> None:
        if self.distributed.rank != 0:
            return
        config, parameters = self.config, self.state.networks.parameter_counts
        self.reporter.event(
            RunStarted(
                name=self.job.name,
                resumed=self.resumed,
                step=self.state.progress.step,
                kimg=self.state.progress.kimg,
                budget_kimg=config.training.kimg,
                workers=self.distributed.size,
                groups=config.scale.groups,
                threads=self.state.threads,
                device=str(self.distributed.device.type),
                batch_size=config.training.batch_size,
                generator_parameters=parameters["generator"],
                discriminator_parameters=parameters["discriminator"],
                data_url=str(config.data.url),
                data_samples=len(self.index),
                metric=self.run_evaluator.metric,
                configuration=self.job.as_yaml(),
                crowding_load=self.crowding_load,
            )
        )
        few = few_images(len(self.index), config, self.evaluator.num_features)
        if few is not None:
            self.reporter.event(few)

    def _meet(self) -> None:
        """Brings together what the workers have seen; all of them come here.

        Raises UserError, on every rank, for a loss that is not finite and for too many bad samples.
        """
        terms, bad_samples = self.meter.meet(self.distributed)
        progress = self.state.progress
        self.guard.check_losses(terms, progress)
        progress.bad_samples += bad_samples
        check_bad_samples(progress.bad_samples, self.config.data)
        begun = progress.health.trained(terms, progress.step, progress.images, self.step.objective.chance_loss)
        self._warn(begun)

    def _meet_before_saving(self) -> None:
        """As `_meet`; also raises UserError where the state itself is not finite."""
        self._meet()
        self.guard.check_state(self.state)

    def _log_and_ask_to_stop(self) -> StopReason | None:
        """Reports the means since the last call; why rank 0 has to stop, if it has. All ranks meet here.

        An evaluation aside begins here, once its checkpoint is whole.
        """
        self._meet()
        terms, images_per_second = self.meter.take()
        progress = self.state.progress
        if self.config.data.bad_samples == "skip":
            terms["data/bad_samples"] = progress.bad_samples
        stop: StopReason | None = None
        if self.distributed.rank == 0:
            self.reporter.event(StepMetrics(progress.step, progress.kimg, images_per_second, terms))
            minutes = self.config.training.max_minutes
            if self.reporter.stop_requested():
                stop = "interrupted"
            elif minutes is not None and self.meter.elapsed() >= 60 * minutes:
                stop = "time"
        stop, may_begin = self.distributed.broadcast((stop, self.run_evaluator.can_begin))
        if may_begin:
            with self.meter.phase("evaluation"):
                self.run_evaluator.begin()
        return stop

    def _evaluate(self, *, last: bool) -> None:
        """Applies the result of an evaluation aside; measures the average generator here, or has it measured.

        Saves the state, with a result that is measured here.
        """
        self._meet_before_saving()
        run_evaluator, told = self.run_evaluator, []
        with self.meter.phase("evaluation"):
            aside = run_evaluator.pending_result()
        if aside is not None:
            told.append(self._judged(aside))
        if last or not run_evaluator.is_async:
            with self.meter.phase("evaluation"):
                here = run_evaluator.here()
            told.append(self._judged(here))
        elif self._verdict() is None:
            run_evaluator.start_async()
        if self.config.training.samples_every_kimg is None:
            self._save_samples()
        self._save_checkpoint()
        for event in told:
            self.reporter.evaluated(event)

    def _judged(self, event: EvaluationResult) -> EvaluationResult:
        """Reports an evaluation, and what it says of the run's health."""
        progress = self.state.progress
        if self.distributed.rank == 0:
            self.reporter.event(event)
        if event.diversity is not None:
            self._warn(progress.health.evaluated(event.diversity, event.step, progress.images))
        return event

    def _unhealthy(self) -> FailureMode | None:
        """The state of ill health that ends the run, where one is to."""
        ongoing = self.state.progress.health.ongoing
        return ongoing[0] if ongoing and self.config.health.stop else None

    def _verdict(self) -> Verdict | None:
        return self.run_evaluator.judgement.verdict or self._unhealthy()

    def _warn(self, begun: list[FailureMode]) -> None:
        if self.distributed.rank == 0:
            episodes = self.state.progress.health.episodes
            for state in begun:
                self.reporter.event(warning(state, episodes[state], self.config))

    def _save_samples_and_checkpoint_if_due(self, before: int) -> None:
        images = self.state.progress.images
        samples_every, every = self.config.training.samples_every_kimg, self.config.checkpoint.every_kimg
        samples_due = samples_every is not None and due(before, images, samples_every)
        checkpoint_due = every is not None and due(before, images, every)
        if samples_due or checkpoint_due:
            self._meet_before_saving()
        if samples_due:
            self._save_samples()
        if checkpoint_due:
            self._save_checkpoint()

    def _save_samples(self) -> None:
        if self.distributed.rank != 0:
            return
        with self.meter.phase("samples"):
            progress, images = self.state.progress, self.grid.images(self.state.ema.network)
            self.reporter.samples(progress.step, progress.kimg, images, self.grid.columns)

    def _save_checkpoint(self) -> None:
        if self.distributed.rank != 0:
            return
        progress = self.state.progress
        event = CheckpointSaved(progress.step, progress.kimg, checkpoint_name(progress.step))
        with self.meter.phase("checkpoint"):
            self.last_checkpoint = self.state.save(
                self.checkpoints, lambda: self.reporter.event(event), self.meter.elapsed()
            )

    def _finish(self, reason: StopReason) -> Summary:
        """The last checkpoint where there is none of this moment, and the summary."""
        self.ending = True
        self._meet_before_saving()
        last = checkpoint_name(self.state.progress.step)
        if self.distributed.rank == 0:
            with self.meter.phase("checkpoint"):
                self.checkpoints.wait()
            if last != self.last_checkpoint:
                self._save_checkpoint()
                self.checkpoints.wait()
        run_evaluator = self.run_evaluator
        best = run_evaluator.best_checkpoint() if self.distributed.rank == 0 else None
        summary = summarise(
            self.job, self.state, self.meter, run_evaluator.judgement, reason,
            metric=run_evaluator.metric,
            real=self.evaluator.real,
            best_checkpoint=self.distributed.broadcast(best),
            resumed_at_kimg=self.resumed_at_kimg,
        )  # fmt: skip
        if self.profiler is not None:
            self.reporter.event(self.profiler.finish())
        if self.distributed.rank == 0:
            self.reporter.event(RunFinished(summary))
        return summary
