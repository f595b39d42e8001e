"""The options of a search, and its plan, which stays the same in all of its sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, field_validator

from distgan.config.load import Overrides, flatten
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.search.expressions import LARGEST, is_number, value_text
from distgan.text import did_you_mean

SamplerName = Literal["random", "grid", "tpe", "bayes"]

SchedulerName = Literal["asha", "hyperband", "median", "pbt", "pb2", "none"]

POPULATIONS = ("pbt", "pb2")


class SearchLimits(BaseModel):
    """The limits of a search; a later session may have others.

    Attributes:
        trials: how many are drawn; of a grid its points, in population-based training the members.
        seeds: runs of each of the `top` trials at the end, each with its own seed, the first run included.
        target: a value of the measure at which the search ends.
        budget_kimg: real images of all trials together, in thousands.
        budget_hours: wall-clock time of one session.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = 10
    seeds: int = 1
    top: int = 3
    target: float | None = None
    budget_kimg: float | None = None
    budget_hours: float | None = None


class SearchPlan(BaseModel):
    """The part of a search that never changes: its space, its measure and its scheduler.

    Attributes:
        source: the preset or file, as it was given.
        data_hash: of the data set's index.
        config: the configuration that all trials share, resolved.
        space: the entry of each searched key, as text.
        measure: the metric by its name in `evaluation.monitor`; `metric`: its whole name, as `fd_lite0_2k`.
        seed: of the draws; that of the training is in `config`.
        grid_points: values of each range in a grid.
        grace_kimg: training of a trial before a scheduler may stop it.
        reduction_factor: one of so many trials passes a rung of ASHA and HyperBand.
        interval_kimg: length of a generation of population-based training.
        warm_start: URL of an earlier search whose results the sampler knows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    data_hash: str
    config: dict[str, Any]
    space: dict[str, str]
    measure: str
    metric: str
    higher_is_better: bool
    sampler: SamplerName
    scheduler: SchedulerName
    seed: int = 0
    grid_points: int = 3
    grace_kimg: float
    reduction_factor: float = 4.0
    interval_kimg: float
    warm_start: str | None = None

    @field_validator("config")
    @classmethod
    def _has_a_budget(cls, value: dict[str, Any]) -> dict[str, Any]:
        training = value.get("training")
        kimg = training.get("kimg") if isinstance(training, dict) else None
        if not is_number(kimg) or not 0 < kimg <= LARGEST or not isinstance(value.get("seed"), int):
            raise ValueError("training.kimg or seed is not a number that a run has")
        return value

    @property
    def kimg(self) -> float:
        """The length of a trial that nothing stops."""
        return float(self.config["training"]["kimg"])

    @property
    def is_population(self) -> bool:
        """Whether trials are members of generations."""
        return self.scheduler in POPULATIONS


def check_same(old: SearchPlan, new: SearchPlan, free: set[str], where: str) -> None:
    """Raises UserError where the search at `where` was started with another plan; keys in `free` may differ."""
    before, after = (flatten(plan.model_dump(mode="json")) for plan in (old, new))
    ignored = {"source"} | {f"config.{key}" for key in free}
    changed = [
        f"{key} was {_text(before.get(key))} and is {_text(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if key not in ignored and before.get(key) != after.get(key)
    ]
    if changed:
        listed = "; ".join(changed if len(changed) <= 3 else [*changed[:3], f"and {len(changed) - 3} more"])
        raise UserError(
            f"{where}: this search was started with other settings: {listed}; set them back to resume it, or start a "
            f"new search with another --name"
        )


def _text(value: Any) -> str:
    return f"{value:.100}" if isinstance(value, str) else value_text(tuple(value) if isinstance(value, list) else value)


@dataclass(frozen=True)
class SearchOptions:
    """The options of `distgan tune`; None stands for a default that depends on the search.

    Attributes:
        source: a preset or file; `overrides` are the same for all trials.
        config: takes the place of both where it is given; `source` is then its name in texts.
        space: files, URLs, presets and `KEY=DISTRIBUTION`, or distributions by key; empty: the source's own.
        metric: a short name, as `distgan evaluate` takes it.
        workers: of each trial.
    """

    source: str
    name: str
    storage: str
    overrides: Overrides = ()
    space: Sequence[str] | Mapping[str, Any] = ()
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
    limits: SearchLimits = field(default_factory=SearchLimits)
    config: Config | None = None


def check_options(options: SearchOptions) -> None:
    """Raises UserError for options that are impossible or contradict each other."""
    _check_known("--scheduler", options.scheduler, get_args(SchedulerName))
    _check_known("--search", options.sampler, get_args(SamplerName))
    _check_numbers(options)
    _check_together(options)


def grace_kimg(options: SearchOptions, trial_kimg: float, every_kimg: float) -> float:
    """The first rung: by default there are three below the whole length, if evaluations are frequent enough."""
    if options.grace_kimg is None:
        return min(trial_kimg, max(every_kimg, trial_kimg / options.reduction_factor**3))
    if options.grace_kimg > trial_kimg:
        raise UserError(
            f"--grace-kimg {options.grace_kimg:g}: a trial has {trial_kimg:g} kimg (training.kimg); give at most that"
        )
    return options.grace_kimg


def interval_kimg(options: SearchOptions, trial_kimg: float, every_kimg: float) -> float:
    """The length of a generation: by default there are ten, if evaluations are frequent enough."""
    if options.interval_kimg is None:
        return min(trial_kimg, max(every_kimg, trial_kimg / 10))
    if options.scheduler in POPULATIONS and options.interval_kimg >= trial_kimg:
        raise UserError(
            f"--interval-kimg {options.interval_kimg:g}: a member has {trial_kimg:g} kimg (training.kimg), and takes "
            f"over another's state between generations; give less"
        )
    return options.interval_kimg


def _check_numbers(options: SearchOptions) -> None:
    """Raises UserError for a value that is no number, or not above 0."""
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
        raise UserError(
            f"--reduction-factor {options.reduction_factor:g}: one of so many trials continues; give more than 1"
        )


def _check_together(options: SearchOptions) -> None:
    """Raises UserError for options that contradict each other."""
    limits = options.limits
    population = options.scheduler in POPULATIONS
    if population and options.sampler != "random":
        raise UserError(
            f"--search {options.sampler}: with --scheduler {options.scheduler} members change their values by "
            f"themselves; leave out --search"
        )
    if population and limits.seeds > 1:
        raise UserError(
            f"--seeds {limits.seeds}: the values of a member change during training, so no run repeats it; leave it "
            f"out with --scheduler {options.scheduler}"
        )
    if population and limits.trials < 2:
        raise UserError(f"--trials {limits.trials}: a population has at least 2 members")
    if options.warm_start is not None and options.sampler not in ("tpe", "bayes"):
        raise UserError("--warm-start: only draws that learn from results can use them; add --search tpe or bayes")


def _check_known(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(f"{option} {value!r:.60}: there is no such one{did_you_mean(value, allowed)}")
