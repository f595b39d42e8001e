"""A search, checked before anything starts: its plan, its space, and the run of each trial."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
import yaml

from distgan.config.compare import free_keys
from distgan.config.load import without_credentials
from distgan.config.overrides import overridden
from distgan.config.own_code import is_own
from distgan.config.registry import EXTRACTORS
from distgan.config.schema import Config, EvaluationConfig
from distgan.config.suggest import did_you_mean
from distgan.data.index import Index
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.evaluation.weights import VARIABLE
from distgan.metrics.measures import check_measures, higher_is_better, measures_of, metric_name
from distgan.metrics.short_names import parse_metrics
from distgan.search.checks import validated
from distgan.search.defaults import default_entries
from distgan.search.files import read_entries
from distgan.search.generations import Generations, generation_end
from distgan.search.live import check_live, suited
from distgan.search.optuna_draws import ModelBased
from distgan.search.pb2 import check_continuous
from distgan.search.plan import POPULATIONS, Limits, Plan, Sampler, Scheduler, check_same
from distgan.search.proposals import Proposals, Repeating, grid_draws, random_draws
from distgan.search.record import TRIALS, SearchRecord, read_record
from distgan.search.space import Space
from distgan.search.trials import Trial, run_name
from distgan.search.warm_start import known_trials
from distgan.training.configuration import read_configuration
from distgan.training.job import Job, make_plan
from distgan.training.networks import build_networks, build_objective, check_combination


@dataclass(frozen=True)
class SearchOptions:
    """What a user asks for, as `distgan tune` takes it; None is chosen by what is searched.

    Attributes:
        source: a preset or file; `overrides` are `KEY=VALUE`, the same for all trials.
        space: files, URLs and `KEY=DISTRIBUTION`; empty: the preset's own.
        metric: a short name, as `distgan evaluate` takes it.
        workers: of each trial.
    """

    source: str
    name: str
    storage: str
    overrides: Sequence[str] = ()
    space: Sequence[str] = ()
    metric: str | None = None
    workers: int = 1
    scheduler: str = "asha"
    sampler: str = "random"
    seed: int = 0
    grid_points: int = 3
    grace_kimg: float | None = None
    reduction_factor: float = 4.0
    interval_kimg: float | None = None
    warm_start: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class SearchJob:
    """A search that can be run.

    Attributes:
        record: as it stands; of a new search without trials.
        config: that all trials share.
        space: validated against it.
        resumes: whether an earlier session began it.
        notes: what the user should know, a sentence each.
    """

    record: SearchRecord
    config: Config
    space: Space
    storage_url: str
    resumes: bool
    notes: tuple[str, ...] = ()

    @property
    def search(self) -> Storage:
        """The search's folder."""
        return Storage.open(self.storage_url).child(self.record.name)

    def proposals(self) -> Proposals:
        """What its trials will be."""
        plan, limits, space = self.record.plan, self.record.limits, self.space
        first = space.initial(self.config)
        inner: Proposals
        if plan.is_population:
            return Generations(plan, limits, space, first)
        if plan.sampler == "grid":
            inner = grid_draws(space, plan.grid_points)
        elif plan.sampler == "random":
            inner = random_draws(space, plan.seed, limits.trials, first)
        else:
            inner = ModelBased(
                plan.sampler,
                space,
                plan.seed,
                limits.trials,
                higher_is_better=plan.higher_is_better,
                first=first,
                earlier=known_trials(plan, space),
            )
        return Repeating(inner, plan, limits)

    def trial_job(self, trial: Trial) -> Job:
        """The run of a trial."""
        plan, values = self.record.plan, {**trial.overrides, "seed": trial.seed}
        if plan.is_population:
            values["training.kimg"] = generation_end(plan, trial.generation)
        config = overridden(self.config, values, f"trial {trial.number}")
        runs = self.search.child(TRIALS).url
        parent = None if trial.parent is None else f"{runs}/{run_name(trial.parent)}"
        return Job(config, trial.name, runs, continue_from=parent)


def plan_search(options: SearchOptions) -> SearchJob:
    """The search that goes on at its place, or a new one. Raises UserError for what cannot work."""
    scheduler = _one_of("--scheduler", options.scheduler, get_args(Scheduler))
    sampler = _one_of("--search", options.sampler, get_args(Sampler))
    _check_numbers(options)
    _check_together(options)
    config = _shared_config(options)
    given, notes = _given_space(options)
    space = validated(given, _loader(config))
    limits = options.limits
    if sampler == "grid":
        limits = limits.model_copy(update={"trials": len(space.grid(options.grid_points))})
    _check_suited(options, space)
    # Only a dry run makes no folder; it may do without data, which a search may not.
    planned = make_plan(Job(config, options.name, options.storage), dry_run=config.data.url is not None)
    if planned.resumes is not None:
        raise UserError(f"{planned.job.run.url}: a run is there, not a search; give the search another --name")
    config = planned.job.config
    _check_measured(config, planned.index)
    plan = Plan(
        source=without_credentials(options.source),
        data_hash=planned.index.hash if planned.index is not None else "",
        config=config.model_dump(mode="json"),
        space=space.as_dict(),
        measure=config.evaluation.monitor,
        metric=_metric(config, planned.index),
        higher_is_better=higher_is_better(config.evaluation.monitor),
        sampler=sampler,
        scheduler=scheduler,
        seed=options.seed,
        grid_points=options.grid_points,
        grace_kimg=_grace(options, config),
        reduction_factor=options.reduction_factor,
        interval_kimg=_interval(options, config),
        warm_start=Storage.open(options.warm_start).url if options.warm_start else None,
    )
    search = Storage.open(options.storage).child(options.name)
    record = read_record(search)
    if record is not None:
        # A trial that has ended does not go on to a higher budget: all have the same.
        check_same(record.plan, plan, free_keys() - {"training.kimg"}, search.url)
        if plan.is_population and record.limits.trials != limits.trials:
            raise UserError(
                f"{search.url}: this population has {record.limits.trials} members; give --trials "
                f"{record.limits.trials} to go on with it, or start a new search with another --name"
            )
    known_trials(plan, space)
    Storage.open(options.storage).prepare()
    now = SearchRecord(name=options.name, plan=plan, limits=limits, trials=record.trials if record else [])
    return SearchJob(now, config, space, Storage.open(options.storage).url, record is not None, notes)


def _given_space(options: SearchOptions) -> tuple[Space, tuple[str, ...]]:
    """The space, not yet validated; of a preset's own, what the scheduler can search, and what that leaves out."""
    if options.space:
        return Space.parse(read_entries(list(options.space))), ()
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
    """What all trials have in common: measured alike, stopped when they are not healthy."""
    config = read_configuration(options.source, [*options.overrides, f"scale.workers={options.workers}"])
    evaluation: dict[str, Any] = {"evaluation.at_start": False}
    if options.metric is not None:
        evaluation |= _measured_by(options.metric)
    elif config.evaluation == EvaluationConfig.model_validate(
        {**config.evaluation.model_dump(), "monitor": "frechet", "extractor": "fd_lite0"}
    ) and (config.evaluation.weights or os.environ.get(VARIABLE)):
        evaluation["evaluation.extractor"] = "fid"
    if options.scheduler in POPULATIONS:
        evaluation["evaluation.patience"] = None  # a member goes on with what another has measured
    if options.limits.target is not None:
        evaluation["evaluation.target"] = options.limits.target
    return overridden(config, {**evaluation, "health.stop": True}, options.source)


def _measured_by(metric: str) -> dict[str, Any]:
    try:
        asked = parse_metrics(metric)
    except UserError as error:
        raise UserError(str(error).replace("--metrics", "--metric", 1)) from None
    if len(asked.measures) != 1:
        raise UserError(
            f"--metric {metric}: a search follows one measure, and these are {len(asked.measures)} "
            f"({', '.join(asked.measures)}); name one of them"
        )
    extractor = {} if asked.extractor is None else {"evaluation.extractor": asked.extractor}
    return {"evaluation.monitor": asked.measures[0], **extractor}


def _metric(config: Config, index: Index | None) -> str:
    evaluation = config.evaluation
    whole = evaluation.real_samples is None or (index is not None and evaluation.real_samples >= len(index))
    return metric_name(evaluation.monitor, evaluation.extractor, evaluation.samples, whole)


def _grace(options: SearchOptions, config: Config) -> float:
    """Where the first rung is: three of them below the whole length, if evaluations are as close as that."""
    every, whole = config.evaluation.every_kimg, config.training.kimg
    if options.grace_kimg is None:
        return min(whole, max(every, whole / options.reduction_factor**3))
    if options.grace_kimg > whole:
        raise UserError(
            f"--grace-kimg {options.grace_kimg:g}: a trial has {whole:g} kimg (training.kimg); give no more than that"
        )
    return options.grace_kimg


def _interval(options: SearchOptions, config: Config) -> float:
    """How long a generation is: ten of them, if evaluations are as close as that."""
    whole = config.training.kimg
    if options.interval_kimg is None:
        return min(whole, max(config.evaluation.every_kimg, whole / 10))
    if options.scheduler in POPULATIONS and options.interval_kimg >= whole:
        raise UserError(
            f"--interval-kimg {options.interval_kimg:g}: a member has {whole:g} kimg (training.kimg), and takes over "
            f"another's state between generations; give less"
        )
    return options.interval_kimg


def _check_measured(config: Config, index: Index | None) -> None:
    """Raises UserError for measures that an evaluation could not take; of a user's own extractor only itself knows."""
    evaluation = config.evaluation
    if is_own(evaluation.extractor) or index is None:
        return
    extractor: Any = EXTRACTORS.resolve(evaluation.extractor)
    real = min(len(index), evaluation.real_samples or len(index))
    check_measures(measures_of(evaluation), extractor, evaluation.samples, real)


def _check_numbers(options: SearchOptions) -> None:
    """Raises UserError for what is no number, or not above 0."""
    limits = options.limits
    if limits.target is not None and not math.isfinite(limits.target):
        raise UserError(f"--target {limits.target:g}: give a number, a value of the measure")
    above_0 = {
        "--budget-kimg": limits.budget_kimg,
        "--budget-hours": limits.budget_hours,
        "--grace-kimg": options.grace_kimg,
        "--interval-kimg": options.interval_kimg,
    }
    for option, number in above_0.items():
        if number is not None and not 0 < number < math.inf:
            raise UserError(f"{option} {number:g}: give a number above 0")
    if not 1 < options.reduction_factor < math.inf:
        raise UserError(f"--reduction-factor {options.reduction_factor:g}: one of so many goes on; give more than 1")


def _check_together(options: SearchOptions) -> None:
    """Raises UserError for options that do not go together."""
    limits = options.limits
    population = options.scheduler in POPULATIONS
    if population and options.sampler != "random":
        raise UserError(
            f"--search {options.sampler}: with --scheduler {options.scheduler} members change their values by "
            f"themselves; leave out --search"
        )
    if population and limits.seeds > 1:
        raise UserError(
            f"--seeds {limits.seeds}: the values of a member change as it goes on, so no run repeats it; leave it out "
            f"with --scheduler {options.scheduler}"
        )
    if population and limits.trials < 2:
        raise UserError(f"--trials {limits.trials}: a population has at least 2 members")
    if options.warm_start is not None and options.sampler not in ("tpe", "bayes"):
        raise UserError("--warm-start: only draws that learn from results can use them; add --search tpe or bayes")


def _loader(config: Config) -> Any:
    """For `checks.validated`: the configuration of a trial, checked as its run would check it."""

    def load(words: list[str]) -> Config:
        pairs = (word.partition("=") for word in words)
        values: Mapping[str, Any] = {key: yaml.safe_load(text) for key, _, text in pairs}
        found = overridden(config, values, "a trial")
        build_objective(found)
        check_combination(found, build_networks(found, torch.device("meta")))
        return found

    return load


def _one_of(option: str, value: str, allowed: Sequence[str]) -> Any:
    if value not in allowed:
        raise UserError(f"{option} {value!r:.60}: there is no such one{did_you_mean(value, allowed)}")
    return value
