"""What a user asks of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

from distgan.config.suggest import did_you_mean
from distgan.errors import UserError
from distgan.search.plan import POPULATIONS, Limits, Sampler, Scheduler


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


def check_options(options: SearchOptions) -> None:
    """Raises UserError for options that cannot be, or do not go together."""
    _check_known("--scheduler", options.scheduler, get_args(Scheduler))
    _check_known("--search", options.sampler, get_args(Sampler))
    _check_numbers(options)
    _check_together(options)


def grace_kimg(options: SearchOptions, whole: float, every: float) -> float:
    """Where the first rung is: three of them below the whole length, if evaluations are as close as that."""
    if options.grace_kimg is None:
        return min(whole, max(every, whole / options.reduction_factor**3))
    if options.grace_kimg > whole:
        raise UserError(
            f"--grace-kimg {options.grace_kimg:g}: a trial has {whole:g} kimg (training.kimg); give no more than that"
        )
    return options.grace_kimg


def interval_kimg(options: SearchOptions, whole: float, every: float) -> float:
    """How long a generation is: ten of them, if evaluations are as close as that."""
    if options.interval_kimg is None:
        return min(whole, max(every, whole / 10))
    if options.scheduler in POPULATIONS and options.interval_kimg >= whole:
        raise UserError(
            f"--interval-kimg {options.interval_kimg:g}: a member has {whole:g} kimg (training.kimg), and takes over "
            f"another's state between generations; give less"
        )
    return options.interval_kimg


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


def _check_known(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"{option} {value!r:.60}: there is no such one{did_you_mean(value, allowed)}")
