"""Plans a search from a user's options: everything is checked before it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from distgan.bounds import parse_yaml
from distgan.config.load import overridden, override_values
from distgan.config.resume_rules import runtime_keys
from distgan.config.schema import Config
from distgan.data.index import Index
from distgan.errors import UserError
from distgan.evaluation.extractors.published import INCEPTION_WEIGHTS
from distgan.evaluation.metrics.registry import (
    higher_is_better,
    metric_name,
    parse_metrics,
)
from distgan.search.optuna_samplers import OptunaSampler
from distgan.search.pb2 import check_continuous
from distgan.search.plan import (
    POPULATIONS,
    SamplerName,
    SchedulerName,
    SearchOptions,
    SearchPlan,
    check_options,
    check_same,
    grace_kimg,
    interval_kimg,
)
from distgan.search.record import TRIALS, SearchRecord, Trial, read_record, run_name
from distgan.search.samplers import (
    PopulationSampler,
    Sampler,
    SeedRepeats,
    generation_end,
    grid_sampler,
    known_trials,
    random_sampler,
)
from distgan.search.space import Space
from distgan.search.space_checks import Load, check_live, suited, validated
from distgan.search.space_files import default_entries, read_entries
from distgan.storage.lease import ClaimedStorage
from distgan.storage.storage import Storage
from distgan.text import without_credentials
from distgan.tracking.tracker import check_trackers
from distgan.training.networks import build_networks, build_objective, check_combination
from distgan.training.run_spec import RunSpec, plan_run, read_configuration


@dataclass(frozen=True)
class SearchSpec:
    """A search that can run.

    Attributes:
        record: the trials so far; none in a new search.
        config: the configuration that all trials share.
        space: the searched space, validated against `config`.
        resumes: whether an earlier session began it.
        notes: remarks for the user, a sentence each.
        claim: the token of the process that owns the search's folder; others cannot write there.
    """

    record: SearchRecord
    config: Config
    space: Space
    storage_url: str
    resumes: bool
    notes: tuple[str, ...] = ()
    claim: str | None = None

    @property
    def search(self) -> Storage:
        """The search's folder."""
        folder = Storage.open(self.storage_url).child(self.record.name)
        return folder if self.claim is None else ClaimedStorage.of(folder, folder, self.claim)

    def sampler(self) -> Sampler:
        """The sampler of its trials."""
        plan, limits, space = self.record.plan, self.record.limits, self.space
        first = space.initial(self.config)
        inner: Sampler
        if plan.is_population:
            return PopulationSampler(plan, limits, space, first)
        if plan.sampler == "grid":
            inner = grid_sampler(space, plan.grid_points)
        elif plan.sampler == "random":
            inner = random_sampler(space, plan.seed, limits.trials, first)
        else:
            inner = OptunaSampler(
                plan.sampler,
                space,
                plan.seed,
                limits.trials,
                higher_is_better=plan.higher_is_better,
                first=first,
                earlier=known_trials(plan, space),
            )
        return SeedRepeats(inner, plan, limits)

    def trial_spec(self, trial: Trial) -> RunSpec:
        """The run of a trial."""
        plan, values = self.record.plan, {**trial.overrides, "seed": trial.seed}
        if plan.is_population:
            values["training.kimg"] = generation_end(plan, trial.generation)
        config = overridden(self.config, values, f"trial {trial.number}")
        runs = self.search.child(TRIALS).url
        parent = None if trial.parent is None else f"{runs}/{run_name(trial.parent)}"
        return RunSpec(config, trial.name, runs, continue_from=parent)


def plan_search(options: SearchOptions, *, dry_run: bool = False) -> SearchSpec:
    """The search that is resumed, or a new one. Raises UserError for options that cannot work.

    A dry run makes no folder.
    """
    check_options(options)
    config = _shared_config(options)
    check_trackers(config.tracking)
    given, notes = _requested_space(options)
    space = validated(given, _loader(config))
    limits = options.limits
    if options.sampler == "grid":
        limits = limits.model_copy(update={"trials": len(space.grid(options.grid_points))})
    _check_suited(options, space)
    # Only a dry run makes no folder; it may do without data, which a search may not.
    planned = plan_run(RunSpec(config, options.name, options.storage), dry_run=config.data.url is not None)
    if planned.resumes is not None:
        raise UserError(f"{planned.spec.run.url}: a run is there, not a search; give the search another --name")
    config = planned.spec.config
    plan = SearchPlan(
        source=without_credentials(options.source),
        data_hash=planned.index.hash if planned.index is not None else "",
        config=config.model_dump(mode="json"),
        space=space.as_dict(),
        measure=config.evaluation.monitor,
        metric=_metric(config, planned.index),
        higher_is_better=higher_is_better(config.evaluation.monitor),
        sampler=cast(SamplerName, options.sampler),
        scheduler=cast(SchedulerName, options.scheduler),
        seed=options.seed,
        grid_points=options.grid_points,
        grace_kimg=grace_kimg(options, config.training.kimg, config.evaluation.every_kimg),
        reduction_factor=options.reduction_factor,
        interval_kimg=interval_kimg(options, config.training.kimg, config.evaluation.every_kimg),
        warm_start=Storage.open(options.warm_start).url if options.warm_start else None,
    )
    search = Storage.open(options.storage).child(options.name)
    record = read_record(search)
    if record is not None:
        # All trials have the same budget: one that has ended cannot resume with a higher one.
        check_same(record.plan, plan, runtime_keys() - {"training.kimg"}, search.url)
        if plan.is_population and record.limits.trials != limits.trials:
            raise UserError(
                f"{search.url}: this population has {record.limits.trials} members; give --trials "
                f"{record.limits.trials} to resume it, or start a new search with another --name"
            )
    known_trials(plan, space)
    if not dry_run:
        Storage.open(options.storage).prepare()
    now = SearchRecord(name=options.name, plan=plan, limits=limits, trials=record.trials if record else [])
    return SearchSpec(now, config, space, Storage.open(options.storage).url, record is not None, notes)


def _requested_space(options: SearchOptions) -> tuple[Space, tuple[str, ...]]:
    """The space, not yet validated, and notes.

    From a preset's own space, entries that the scheduler cannot search are left out; the notes name them.
    """
    if options.space:
        return Space.parse(read_entries(options.space)), ()
    if options.config is not None:
        raise UserError("--space is missing: a configuration has no space of its own; give one, or a preset's name")
    whole = Space.parse(default_entries(options.source))
    space = suited(whole, lambda one: _check_suited(options, one))
    left_out = [key for key in whole.keys if key not in space.entries]
    if not left_out:
        return whole, ()
    return space, (f"--scheduler {options.scheduler} cannot search {', '.join(left_out)} of {options.source}'s space",)


def _check_suited(options: SearchOptions, space: Space) -> None:
    """Raises UserError for an entry that the scheduler cannot search."""
    if options.scheduler in POPULATIONS:
        check_live(space)
    if options.scheduler == "pb2":
        check_continuous(space)


def _shared_config(options: SearchOptions) -> Config:
    """The configuration that all trials share: the same measure, and `health.stop`."""
    workers = {"scale.workers": options.workers}
    if options.config is None:
        config = read_configuration(options.source, override_values(options.overrides) | workers)
    else:
        config = overridden(options.config, workers, options.source)
    if config.scale.min_workers is not None:
        raise UserError(
            f"scale.min_workers={config.scale.min_workers}: the trials of a search have a fixed number of workers, "
            f"--workers-per-trial; leave it out"
        )
    evaluation: dict[str, Any] = {"evaluation.at_start": False}
    if options.metric is not None:
        evaluation |= _measured_by(options.metric)
    elif (config.evaluation.monitor, config.evaluation.extractor) == ("frechet", "fd_lite0") and (
        config.evaluation.weights or os.environ.get(INCEPTION_WEIGHTS.variable)
    ):
        evaluation["evaluation.extractor"] = "fid"
    if options.scheduler in POPULATIONS:
        evaluation["evaluation.patience"] = None  # a member resumes with another's evaluations
    if options.limits.target is not None:
        evaluation["evaluation.target"] = options.limits.target
    return overridden(config, {**evaluation, "health.stop": True}, options.source)


def _measured_by(metric: str) -> dict[str, Any]:
    try:
        asked = parse_metrics(metric)
    except UserError as error:
        raise UserError(str(error).replace("--metrics", "--metric", 1)) from None
    if len(asked.metrics) != 1:
        raise UserError(
            f"--metric {metric}: a search follows one metric, and these are {len(asked.metrics)} "
            f"({', '.join(asked.metrics)}); name one of them"
        )
    extractor = {} if asked.extractor is None else {"evaluation.extractor": asked.extractor}
    return {"evaluation.monitor": asked.metrics[0], **extractor}


def _metric(config: Config, index: Index | None) -> str:
    evaluation = config.evaluation
    whole = evaluation.real_samples is None or (index is not None and evaluation.real_samples >= len(index))
    return metric_name(evaluation.monitor, evaluation.extractor, evaluation.samples, whole)


def _loader(config: Config) -> Load:
    """For `checks.validated`: the configuration of a trial, checked as its run would check it."""

    def load(words: list[str]) -> Config:
        pairs = (word.partition("=") for word in words)
        values: Mapping[str, Any] = {key: parse_yaml(text) for key, _, text in pairs}
        found = overridden(config, values, "a trial")
        check_combination(found, build_networks(found, torch.device("meta")), build_objective(found))
        return found

    return load
