"""From what a user asks to a search that can be run, all of it checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

import torch

from distgan.bounds import parse_yaml
from distgan.config.compare import free_keys
from distgan.config.overrides import overridden
from distgan.config.own_code import is_own
from distgan.config.registry import EXTRACTORS
from distgan.config.schema import Config
from distgan.data.index import Index
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.evaluation.weights import VARIABLE
from distgan.metrics.measures import check_measures, higher_is_better, measures_of, metric_name
from distgan.metrics.short_names import parse_metrics
from distgan.search.checks import Load, validated
from distgan.search.defaults import default_entries
from distgan.search.files import read_entries
from distgan.search.job import SearchJob
from distgan.search.live import check_live, suited
from distgan.search.options import SearchOptions, check_options, grace_kimg, interval_kimg
from distgan.search.pb2 import check_continuous
from distgan.search.plan import POPULATIONS, Plan, Sampler, Scheduler, check_same
from distgan.search.record import SearchRecord, read_record
from distgan.search.space import Space
from distgan.search.warm_start import known_trials
from distgan.text import without_credentials
from distgan.training.configuration import read_configuration
from distgan.training.job import Job, make_plan
from distgan.training.networks import build_networks, build_objective, check_combination


def plan_search(options: SearchOptions) -> SearchJob:
    """The search that goes on at its place, or a new one. Raises UserError for what cannot work."""
    check_options(options)
    config = _shared_config(options)
    given, notes = _given_space(options)
    space = validated(given, _loader(config))
    limits = options.limits
    if options.sampler == "grid":
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
        sampler=cast(Sampler, options.sampler),
        scheduler=cast(Scheduler, options.scheduler),
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
    elif (config.evaluation.monitor, config.evaluation.extractor) == ("frechet", "fd_lite0") and (
        config.evaluation.weights or os.environ.get(VARIABLE)
    ):
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


def _check_measured(config: Config, index: Index | None) -> None:
    """Raises UserError for measures that an evaluation could not take; of a user's own extractor only itself knows."""
    evaluation = config.evaluation
    if is_own(evaluation.extractor) or index is None:
        return
    extractor: Any = EXTRACTORS.resolve(evaluation.extractor)
    real = min(len(index), evaluation.real_samples or len(index))
    check_measures(measures_of(evaluation), extractor, evaluation.samples, real)


def _loader(config: Config) -> Load:
    """For `checks.validated`: the configuration of a trial, checked as its run would check it."""

    def load(words: list[str]) -> Config:
        pairs = (word.partition("=") for word in words)
        values: Mapping[str, Any] = {key: parse_yaml(text) for key, _, text in pairs}
        found = overridden(config, values, "a trial")
        build_objective(found)
        check_combination(found, build_networks(found, torch.device("meta")))
        return found

    return load
