"""Trains a run: builds its parts from its specification, then runs the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event as Flag

from distgan.config.plugins import custom_names
from distgan.config.schema import Config
from distgan.data.batch_memory import DecodedSamples
from distgan.data.dataset import Dataset
from distgan.data.kept import Kept
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Evaluator, build_evaluator
from distgan.storage.retry import Retry
from distgan.storage.storage_errors import StorageError
from distgan.text import plural
from distgan.training.acceleration import check_acceleration
from distgan.training.adaptive_augmentation import restored_probability
from distgan.training.checkpoints import Checkpoint, CheckpointStore
from distgan.training.data_checks import check_data, check_held_out, small_dataset_warning
from distgan.training.divergence import DivergenceGuard
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.events import Notice, PhaseStarted, Reporter, RunStarted, Summary
from distgan.training.fakes import SampleGrid
from distgan.training.held_out import HeldOutImages
from distgan.training.loop import Trainer
from distgan.training.meter import Meter
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.own_modules import changed_modules
from distgan.training.process import choose_threads, crowding_load, prepare_process
from distgan.training.profiling import StepProfiler
from distgan.training.progress import Progress
from distgan.training.run_evaluator import AsyncEvaluator, RunEvaluator
from distgan.training.run_spec import RunSpec
from distgan.training.session import this_session
from distgan.training.starting_point import LAST, find_checkpoint
from distgan.training.state import TrainingState, check_continuable, check_resumable
from distgan.training.step import Step
from distgan.training.unsaved import restore_unsaved


@dataclass
class KeptParts:
    """What a process keeps from one run for the next one: both with the same data and evaluation."""

    decoded: Kept[DecodedSamples] = field(default_factory=Kept)
    evaluator: Kept[Evaluator] = field(default_factory=Kept)


def train(
    spec: RunSpec,
    distributed: Distributed,
    reporter: Reporter,
    async_evaluator: AsyncEvaluator | None = None,
    meter: Meter | None = None,
    kept: KeptParts | None = None,
) -> Summary:
    """Trains a run from its newest checkpoint, or from its beginning, to its end. Every rank calls it.

    With `async_evaluator`, all evaluations but the last are asynchronous. `meter` is a new one; it shows what the
    training does. `kept` is from earlier runs of this process, which have ended.
    """
    trainer = build_trainer(spec, distributed, reporter, async_evaluator, meter, kept)
    checkpoints = trainer.checkpoints
    try:
        return trainer.run()
    except KeyboardInterrupt:
        checkpoints.abandon()
        if checkpoints.kept is not None:
            reporter.event(Notice(checkpoints.kept))
        raise
    except StorageError as error:
        trainer.save_at_error()
        if checkpoints.kept is None:
            raise
        raise type(error)(f"{error}; {checkpoints.kept}") from error
    finally:
        checkpoints.join()


def build_trainer(
    spec: RunSpec,
    distributed: Distributed,
    reporter: Reporter,
    async_evaluator: AsyncEvaluator | None = None,
    meter: Meter | None = None,
    kept: KeptParts | None = None,
) -> Trainer:
    """Everything that the loop works with, in the state that the run starts from. Every rank calls it.

    Raises UserError where the run cannot start.
    """
    config, meter, kept, finishing = spec.config, meter or Meter(), kept or KeptParts(), Flag()
    _check_workers(config, distributed)
    check_acceleration(config, distributed)

    def log(text: str) -> None:
        if distributed.rank == 0:
            reporter.event(Notice(text))

    def stop_reading() -> bool:
        return distributed.rank == 0 and not finishing.is_set() and reporter.stop_requested()

    # Reads of unavailable storage wait until a stop is requested; a state that is being saved waits longer.
    reading, writing = Retry(log, stop_reading, wait_s=spec.patience_s), Retry(log, wait_s=spec.patience_s)
    custom = custom_names(config.model_dump(mode="json"))
    checkpoints = CheckpointStore(spec.run, custom, reading=reading, writing=writing, log=log)
    distributed.from_rank_0(lambda: restore_unsaved(spec.run, checkpoints.newest_complete, reading, log))
    resumed = _newest_checkpoint(spec, distributed, checkpoints)
    continued = _other_run(spec, distributed, reading, custom) if resumed is None else None

    start = resumed or continued
    threads = distributed.broadcast(
        choose_threads(config.scale.threads, distributed, start.manifest if start is not None else None)
    )
    load = crowding_load(threads, distributed)
    prepare_process(threads, distributed.device, config.training.precision)

    dataset = Dataset.open(config.data, config.image_shape, Retry(log, stop_reading, wait_s=spec.patience_s))
    check_data(config, dataset.index)
    state = _initial_state(config, distributed, dataset, threads)
    if distributed.rank == 0:
        state.session = this_session(distributed.device, spec.command, custom.values())
    if resumed is not None:
        _resume(state, resumed, spec.run.url, log)
    elif continued is not None:
        check_continuable(continued, config, state.data_hash)
        state.continue_from(continued)
        _tell_changed_modules(state, continued, log)
    elif (url := distributed.broadcast(spec.init_from)) is not None:
        left_out = state.load_weights(find_checkpoint(url, retry=reading), partial=distributed.broadcast(spec.partial))
        if left_out is not None:
            log(left_out)

    held_out = _open_held_out(config, dataset)
    state.progress.augmentation = restored_probability(
        state.progress.augmentation, config, held_out.index.hash if held_out is not None else None, spec.run.url
    )
    step = Step(config, state.networks, build_objective(config), state.optimizers, distributed)
    chosen = [Notice(line) for line in step.warm_up()]
    if step.graphs is not None:
        state.ema.capture(state.networks.generator, step.graphs)
    profiler = StepProfiler(spec.run, distributed.device, log) if spec.profile and distributed.rank == 0 else None
    grid = SampleGrid(config, distributed.device)
    if distributed.rank == 0 and config.evaluation.statistics is None:
        measured = min(len(dataset.index), config.evaluation.real_samples or len(dataset.index))
        reporter.event(PhaseStarted(f"statistics of {plural(measured, 'real image')}"))
    with meter.phase("real statistics"):
        evaluator = kept.evaluator.get(
            (*dataset.images_key, config.evaluation.model_dump_json(), config.data.model_dump_json(), distributed),
            lambda: build_evaluator(config.evaluation, config.data, distributed, dataset),
        )
    run_evaluator = RunEvaluator(
        config, state, evaluator, dataset.index.labels, checkpoints, distributed, async_evaluator
    )
    held_out_images = None
    if held_out is not None:
        with meter.phase("held-out images"):
            held_out_images = HeldOutImages(config, step, dataset, held_out)
    few = small_dataset_warning(len(dataset.index), config, run_evaluator.num_features)
    started = _run_started(
        spec, state, distributed, run_evaluator.metric, len(dataset.index), resumed is not None, load
    )
    meter.end_start()
    return Trainer(
        spec=spec,
        distributed=distributed,
        reporter=reporter,
        meter=meter,
        dataset=dataset,
        state=state,
        step=step,
        evaluator=run_evaluator,
        checkpoints=checkpoints,
        guard=DivergenceGuard(spec, distributed, checkpoints),
        grid=grid,
        held_out=held_out_images,
        last_checkpoint=resumed.manifest.name if resumed is not None else None,
        is_continuation=continued is not None,
        start_events=[started, *chosen] if few is None else [started, *chosen, few],
        finishing=finishing,
        profiler=profiler,
        decoded=kept.decoded,
    )


def _open_held_out(config: Config, dataset: Dataset) -> Dataset | None:
    """The data set of held-out images, if there is one. Raises UserError where it does not fit."""
    if config.data.held_out is None:
        return None
    own = config.data.model_copy(update={"url": config.data.held_out})
    held_out = Dataset.open(own, config.image_shape, dataset.reader.retry)
    check_held_out(config, dataset.index, held_out.index)
    return held_out


def _check_workers(config: Config, distributed: Distributed) -> None:
    if distributed.size > config.scale.groups:
        raise UserError(
            f"{distributed.size} workers were started, but scale.groups={config.scale.groups} and each needs a "
            f"group; start at most {config.scale.groups} or raise scale.groups (this changes the recipe)"
        )


def _newest_checkpoint(spec: RunSpec, distributed: Distributed, checkpoints: CheckpointStore) -> Checkpoint | None:
    """The checkpoint to resume from, the same on every rank: rank 0 chooses, as storage may change in between.

    Raises UserError on a rank that cannot read the one that rank 0 found.
    """
    found: list[Checkpoint] = []

    def find_newest() -> str | None:
        found.extend(filter(None, [checkpoints.newest()]))
        return found[0].manifest.name if found else None

    name = distributed.from_rank_0(find_newest)
    if name is None or found:
        return next(iter(found), None)
    checkpoint = checkpoints.load(name)
    if checkpoint is None:
        raise UserError(
            f"{spec.run.url}: worker {distributed.rank} cannot read checkpoint {name}, which worker 0 "
            f"found; --storage must be a folder or bucket that the machines of all workers share"
        )
    return checkpoint


def _other_run(spec: RunSpec, distributed: Distributed, retry: Retry, custom: Mapping[str, str]) -> Checkpoint | None:
    """The checkpoint of another run that this one continues, if it is to continue one."""
    url = distributed.broadcast(spec.continue_from)
    return None if url is None else find_checkpoint(url, default=LAST, retry=retry, custom=custom)


def _initial_state(config: Config, distributed: Distributed, dataset: Dataset, threads: int) -> TrainingState:
    """The state before the first step, with random weights."""
    networks = build_networks(config, distributed.device)
    return TrainingState(
        config=config,
        networks=networks,
        ema=ExponentialMovingAverage(networks.generator, config.ema),
        optimizers=build_optimizers(config.optimizer, networks.generator, networks.discriminator),
        progress=Progress(),
        data_hash=dataset.index.hash,
        workers=distributed.size,
        threads=threads,
        classes=dataset.index.header.classes if config.num_classes is not None else [],
    )


def _resume(state: TrainingState, checkpoint: Checkpoint, run_url: str, log: Callable[[str], None]) -> None:
    check_resumable(checkpoint.manifest, state.config, state.data_hash, run_url)
    state.restore(checkpoint)
    for skipped in checkpoint.skipped:
        log(f"{skipped}; resuming from {checkpoint.manifest.name}")
    if checkpoint.manifest.former_format is not None:
        log(checkpoint.manifest.former_format)
    _tell_changed_modules(state, checkpoint, log)


def _tell_changed_modules(state: TrainingState, checkpoint: Checkpoint, log: Callable[[str], None]) -> None:
    before, now, run_url = checkpoint.manifest.session, state.session, checkpoint.url.rsplit("/", 2)[0]
    if before is not None and now is not None:
        for line in changed_modules(before.modules, now.modules, run_url, checkpoint.manifest.name):
            log(line)


def _run_started(
    spec: RunSpec,
    state: TrainingState,
    distributed: Distributed,
    metric: str,
    samples: int,
    resumed: bool,
    load: float | None,
) -> RunStarted:
    config, parameters = spec.config, state.networks.parameter_counts
    return RunStarted(
        name=spec.name,
        resumed=resumed,
        step=state.progress.step,
        kimg=state.progress.kimg,
        budget_kimg=config.training.kimg,
        workers=distributed.size,
        groups=config.scale.groups,
        threads=state.threads,
        device=str(distributed.device.type),
        batch_size=config.training.batch_size,
        generator_parameters=parameters["generator"],
        discriminator_parameters=parameters["discriminator"],
        data_url=str(config.data.url),
        data_samples=samples,
        metric=metric,
        configuration=spec.as_yaml(),
        crowding_load=load,
        evaluation_every_kimg=config.evaluation.every_kimg,
    )
