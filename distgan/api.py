"""The Python API: what a command of `distgan` does is one call.

`import distgan` exports these names and imports them when they are first used. Arguments are called as the command's
options are, so an error that names an option names an argument.

A mistake that you can fix raises `UserError`. Nothing here ends the process. Ctrl-C, SIGTERM and SIGHUP first save the
state and then raise `Interrupted`. Signals are handled in the main thread only: a call in another thread leaves them
to the program.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distgan.config import load
from distgan.config.load import Overrides
from distgan.config.schema import Config
from distgan.errors import Interrupted, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from distgan.evaluation.image_source import Stage
    from distgan.inference.evaluation import EvaluationReport
    from distgan.inference.evaluation_plan import EvaluationSpec
    from distgan.search.cost import SearchCost
    from distgan.search.plan import SearchOptions
    from distgan.search.ranking import Ranked
    from distgan.search.record import SearchRecord
    from distgan.storage.lease import Lease
    from distgan.training.events import Summary
    from distgan.training.run_spec import RunSpec

_log = logging.getLogger(__name__)


def load_config(preset_or_file: str | Path | Config, overrides: Overrides | None = None, /, **sections: Any) -> Config:
    """Loads and checks a configuration.

    Args:
        preset_or_file: a preset's name, a YAML file or its URL, or a configuration that has been loaded.
        overrides: values by dotted key, as `{"optimizer.generator.lr": 1e-4}`, or the command line's `KEY=VALUE` texts.
        sections: the same by section or top-level key, as `training={"kimg": 60}, seed=1`; they win over `overrides`.

    Raises:
        UserError: for what cannot be read or cannot work, naming the key, the value and what is allowed.
    """
    values = load.override_values(overrides or ()) | load.flatten(sections)
    if isinstance(preset_or_file, Config):
        return preset_or_file if not values else load.overridden(preset_or_file, values, "load_config")
    if "://" not in str(preset_or_file):
        return load.load_config(str(preset_or_file), values)
    from distgan.training.run_spec import read_configuration

    return read_configuration(str(preset_or_file), values)


@dataclass(frozen=True)
class TrainResult:
    """A run after `train`.

    Attributes:
        url: of the run's folder, for `evaluate`, `load_generator` and `init_from`.
        summary: why it ended, its best and latest values, its checkpoints, times and health; as summary.json.
    """

    url: str
    summary: Summary


def train(
    config: Config | str | Path,
    *,
    name: str | None = None,
    storage: str | Path = "runs",
    workers: int | tuple[int, int] | None = None,
    address: str | None = None,
    ray: bool | None = None,
    profile: bool = False,
    init_from: str | None = None,
    continue_from: str | None = None,
    partial: bool = False,
    began: float | None = None,
) -> TrainResult:
    """Trains a GAN, or resumes the run that exists at STORAGE/NAME.

    Args:
        config: from `load_config`; or a preset's name or a file, taken as it is.
        name: of the run; by default that of the preset or file.
        storage: folder or URL (`s3://…`) that runs are kept under.
        workers: DDP workers; by default `scale.workers`. A pair is the fewest and the most: as many as there is room
            for on Ray at any time.
        address: a Ray cluster; by default RAY_ADDRESS, or one started on this machine.
        ray: whether Ray runs the workers. By default for several workers and where an address is given; one worker
            trains in this process, and under torchrun its processes do.
        profile: records some steps: a trace, and a table of where their time goes.
        init_from: a run or checkpoint; a new run begins with its weights.
        continue_from: a run or checkpoint; a new run begins with its whole state.
        partial: with `init_from`: takes the weights that fit by name and shape, and says which are left out.
        began: `time.monotonic()` from which the summary's `start` counts; by default now.

    Raises:
        UserError: for a configuration, data or resources that cannot work.
        Interrupted: after a signal, with the state saved; its `result` is the `TrainResult`, or None where nothing was
            trained.
    """
    began = time.monotonic() if began is None else began
    from distgan.launch.local import check_device, check_fixed, check_processes, cluster_address, train_local
    from distgan.storage.retry import Retry
    from distgan.tracking.tracker import check_trackers
    from distgan.training.run_spec import RunSpec, plan_run
    from distgan.training.session import this_command

    name = name or _name_of(config)
    config = load_config(config, _worker_overrides(workers))
    if ray is None:
        ray = "RANK" not in os.environ and (
            config.scale.workers > 1 or config.scale.min_workers is not None or cluster_address(address) is not None
        )
    if not ray:
        check_fixed(config.scale)
        check_processes(config.scale.workers)
    check_device(config.scale.device, config.scale.fewest, address, no_ray=not ray)
    first = os.environ.get("RANK", "0") == "0"
    if first:
        check_trackers(config.tracking)
    asked = RunSpec(
        config, name, str(storage), profile, init_from, continue_from, partial=partial, command=this_command()
    )
    retry = Retry(_log.warning if first else None, wait_s=asked.patience_s)
    plan = retry(lambda: plan_run(asked))
    for text in plan.warnings if first else ():
        _log.warning("%s; beginning from another one", text)
    spec = plan.spec
    with ExitStack() as stack:
        lease = retry(lambda: stack.enter_context(_claimed(spec))) if first else None
        lost = (lambda: False) if lease is None else (lambda: lease.lost)
        spec = spec if lease is None else replace(spec, claim=lease.token)
        if ray:
            from distgan.launch.train import train_on_ray

            outcome = train_on_ray(spec, address, lost)
        else:
            outcome = train_local(spec, lost)
    summary = outcome.timed(began, time.monotonic())
    result = None if summary is None else TrainResult(plan.spec.run.url, summary)
    if outcome.exit_code:
        raise Interrupted(outcome.exit_code, result)
    assert result is not None, "a run that nobody stopped has a summary"
    return result


def _worker_overrides(workers: int | tuple[int, int] | None) -> dict[str, int | None]:
    if workers is None:
        return {}
    low, high = (None, workers) if isinstance(workers, int) else workers
    return {"scale.workers": high, "scale.min_workers": low}


@dataclass(frozen=True)
class SearchResult:
    """A search after `tune`.

    Attributes:
        url: of the search's folder.
        record: the plan and all trials, as search.json.
        ranking: trials that have a value, the best first.
    """

    url: str
    record: SearchRecord
    ranking: Sequence[Ranked]

    @property
    def best_value(self) -> float:
        """The winner's value of the search's metric; the mean over its seeds."""
        return self._winner.value

    @property
    def best_config(self) -> Config:
        """The winner's whole configuration, for `train`."""
        from distgan.search.record import FILE, trial_config

        return trial_config(self.record.plan, self._winner.best_run, f"{self.url}/{FILE}")

    @property
    def best_run(self) -> str:
        """URL of the winner's run, for `evaluate`, `load_generator` and `continue_from`."""
        from distgan.search.record import trial_url
        from distgan.storage.storage import Storage

        return trial_url(Storage.open(self.url), self._winner.best_run)

    @property
    def _winner(self) -> Ranked:
        if not self.ranking:
            raise UserError(f"{self.url}: no trial of this search has a value yet")
        return self.ranking[0]


def tune(
    config: Config | str | Path,
    space: Mapping[str, Any] | Sequence[str] | str | Path | None = None,
    *,
    overrides: Overrides = (),
    name: str | None = None,
    storage: str | Path = "runs",
    trials: int = 10,
    scheduler: str = "asha",
    search: str = "random",
    metric: str | None = None,
    concurrent: int | None = None,
    workers_per_trial: int = 1,
    grace_kimg: float | None = None,
    reduction_factor: float = 4.0,
    interval_kimg: float | None = None,
    grid_points: int = 3,
    target: float | None = None,
    budget_kimg: float | None = None,
    budget_hours: float | None = None,
    seeds: int = 1,
    top: int = 3,
    seed: int = 0,
    warm_start: str | None = None,
    address: str | None = None,
) -> SearchResult:
    """Searches a space of configuration keys, or resumes the search that exists at STORAGE/NAME. Starts Ray.

    Args:
        config: what all trials share: from `load_config`, or a preset's name or a file.
        space: distributions by dotted key, as `{"optimizer.generator.lr": "loguniform(1e-5, 1e-3)"}`; or a file, a
            preset's name, or several of these and `KEY=DISTRIBUTION` texts. By default the `search` section of the
            preset or file.
        overrides: of what `config` has, as `load_config` takes them.
        name: of the search; by default that of the preset or file with `-search`.

    The other arguments are the options of `distgan tune`; `distgan tune --help` describes them.

    Raises:
        UserError: for a space, data or resources that cannot work, and where no trial has a value.
        Interrupted: after a signal, with all trials saved; its `result` is the `SearchResult`.
    """
    from distgan.search.planning import plan_search

    options = _search_options(
        config, space, overrides=overrides, name=name, storage=storage, trials=trials, scheduler=scheduler,
        search=search, metric=metric, workers_per_trial=workers_per_trial, grace_kimg=grace_kimg,
        reduction_factor=reduction_factor, interval_kimg=interval_kimg, grid_points=grid_points, target=target,
        budget_kimg=budget_kimg, budget_hours=budget_hours, seeds=seeds, top=top, seed=seed, warm_start=warm_start,
    )  # fmt: skip
    job = plan_search(options)
    from distgan.search.ranking import leaderboard
    from distgan.search.ray.tuner import tune_on_ray
    from distgan.search.results import check_measured, write_results
    from distgan.storage.lease import claimed

    with claimed(job.search, "searches", "give another --name") as lease:
        job = replace(job, claim=lease.token)
        outcome = tune_on_ray(job, address, concurrent)
        check_measured(outcome.record, job.search.url)
        write_results(outcome.record, job.search)
    record = outcome.record
    result = SearchResult(job.search.url, record, leaderboard(record.plan, record.trials))
    if outcome.exit_code:
        raise Interrupted(outcome.exit_code, result)
    return result


def search_cost(
    config: Config | str | Path,
    space: Mapping[str, Any] | Sequence[str] | str | Path | None = None,
    **arguments: Any,
) -> SearchCost:
    """What a search would cost: trials, kimg and time, from a few steps on this machine. Takes arguments of `tune`.

    Trains nothing, starts no Ray and writes nothing.

    Raises:
        UserError: as `tune` does before it starts Ray, and where this machine cannot make a step.
    """
    from distgan.search.cost import estimate_cost
    from distgan.search.planning import plan_search

    return estimate_cost(plan_search(_search_options(config, space, **arguments), dry_run=True))


def _search_options(
    config: Config | str | Path,
    space: Mapping[str, Any] | Sequence[str] | str | Path | None,
    *,
    overrides: Overrides = (),
    name: str | None = None,
    storage: str | Path = "runs",
    search: str = "random",
    workers_per_trial: int = 1,
    trials: int = 10,
    target: float | None = None,
    budget_kimg: float | None = None,
    budget_hours: float | None = None,
    seeds: int = 1,
    top: int = 3,
    **further: Any,
) -> SearchOptions:
    from distgan.search.plan import SearchLimits, SearchOptions

    limits = SearchLimits(
        trials=trials, seeds=seeds, top=top, target=target, budget_kimg=budget_kimg, budget_hours=budget_hours
    )
    given = [str(space)] if isinstance(space, str | Path) else space or ()
    return SearchOptions(
        "a configuration" if isinstance(config, Config) else str(config),
        name or f"{_name_of(config)}-search",
        str(storage),
        overrides,
        given,
        workers=workers_per_trial,
        sampler=search,
        limits=limits,
        config=load_config(config, overrides) if isinstance(config, Config) else None,
        **further,
    )


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        metrics: values by the names that reports have, as `fd_lite0_2k`.
        spec: what was compared with what.
        report: the values with standard deviations, times, classes and nearest images.
    """

    metrics: Mapping[str, float]
    spec: EvaluationSpec
    report: EvaluationReport

    def as_dict(self) -> dict[str, Any]:
        """The document that `distgan evaluate --json` writes."""
        from distgan.inference.report import evaluation_document

        return evaluation_document(self.spec, self.report)


def evaluate(
    run_or_images: str | Path | NDArray[np.uint8],
    *,
    data: str | None = None,
    metrics: str | Sequence[str] | None = None,
    samples: int | None = None,
    workers: int = 1,
    checkpoint: str | None = None,
    extractor: str | None = None,
    real_samples: int | None = None,
    statistics: str | None = None,
    per_class: bool = False,
    nearest: int = 0,
    trust_code: bool = False,
    trust_addresses: bool = False,
    address: str | None = None,
    ray: bool | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measures a run's best checkpoint, another one, or images from anywhere, against a data set.

    Args:
        run_or_images: folder or URL of a run or checkpoint; a folder of images; an .npy or .npz file as
            `distgan sample` writes it, or such an array: uint8 (N, H, W, C).
        data: URL of the data set to compare with; by default the run's own.
        metrics: names, in a list or joined by commas; by default the Fréchet distance.
        samples: images that are measured; by default the run's number, or all.
        workers: processes that share the work: this one, or several on Ray.
        checkpoint: which of a run's: a name, `best` or `last`.
        nearest: so many samples are looked up among the training images: the search for copies.
        address: a Ray cluster to work on.
        ray: whether Ray runs the workers; by default for several workers and with an address.
        progress: shows a bar on a terminal.

    The other arguments are the options of `distgan evaluate`; `distgan evaluate --help` describes them.

    Raises:
        UserError: for what is not there, cannot be compared or cannot be measured.
        Interrupted: after a signal, where Ray runs the workers.
    """
    from distgan.inference.evaluation import evaluate as evaluate_spec
    from distgan.inference.evaluation_plan import EvaluationOptions, plan_evaluation
    from distgan.launch.evaluate import run_task
    from distgan.launch.local import Workers
    from distgan.tracking.progress_bars import feature_bars

    options = EvaluationOptions(
        data=data, metrics=metrics if metrics is None or isinstance(metrics, str) else ",".join(metrics),
        samples=samples, checkpoint=checkpoint, extractor=extractor, real_samples=real_samples, statistics=statistics,
        per_class=per_class, nearest=nearest, trust_code=trust_code, trust_addresses=trust_addresses,
    )  # fmt: skip
    if ray is None:
        ray = "RANK" not in os.environ and (workers > 1 or address is not None)
    with _images_file(run_or_images) as source:
        spec = plan_evaluation(source, options)
        places = Workers(workers, (address or "local") if ray else None, not ray, spec.device, spec.custom_sources)
        totals: dict[Stage, int] = {"real images": spec.real_images, "images": spec.evaluation.samples}
        if spec.nearest:
            totals["training images"] = spec.training_images
        with feature_bars(totals, quiet=not progress) as (on_progress, log):
            report = run_task("evaluate", evaluate_spec, spec, places, on_progress, log, on_all_ranks=True)
    assert report is not None, "every rank has the result"
    return Evaluation({one.name: one.value for one in report.metrics}, spec, report)


def _claimed(spec: RunSpec) -> AbstractContextManager[Lease]:
    """The claim of the run's folder; under torchrun only rank 0 writes there."""
    from distgan.storage.lease import claimed

    return claimed(spec.run, "trains this run", "give another --name")


@contextmanager
def _images_file(run_or_images: str | Path | NDArray[np.uint8]) -> Iterator[str]:
    """The path or URL; inside, an array is a file of this machine."""
    if isinstance(run_or_images, str | Path):
        yield str(run_or_images)
        return
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="distgan-") as folder:
        path = Path(folder) / "images.npy"
        np.save(path, run_or_images)
        yield str(path)


def _name_of(config: Config | str | Path) -> str:
    if isinstance(config, Config):
        raise UserError("--name is missing: a configuration has none of its own; give name=NAME")
    return Path(config).stem
