"""What a search is: the same for all of its sessions, but for how long it goes on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from distgan.config.load import flatten
from distgan.errors import UserError
from distgan.search.values import LARGEST, is_number, value_text

Sampler = Literal["random", "grid", "tpe", "bayes"]
Scheduler = Literal["asha", "hyperband", "median", "pbt", "pb2", "none"]
POPULATIONS = ("pbt", "pb2")


class Limits(BaseModel):
    """What may be another in the next session of a search.

    Attributes:
        trials: how many are drawn; of a grid its points, in population-based training the members.
        seeds: runs of each of the `top` trials in the end, with a seed each, their first run among them.
        target: a value of the measure at which the search ends.
        budget_kimg: real images of all trials together, in thousands.
        budget_hours: of one session, wall-clock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = 10
    seeds: int = 1
    top: int = 3
    target: float | None = None
    budget_kimg: float | None = None
    budget_hours: float | None = None


class Plan(BaseModel):
    """What the trials are drawn from, and what decides between them.

    Attributes:
        source: the preset or file, as it was given.
        data_hash: of the data set's index.
        config: the configuration that all trials share, resolved.
        space: the entry of each searched key, as text.
        measure: as `evaluation.monitor` calls it; `metric`: its whole name, as `fd_lite0_2k`.
        seed: of the draws; that of the training is in `config`.
        grid_points: values of each range in a grid.
        grace_kimg: no scheduler stops a trial before.
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
    sampler: Sampler
    scheduler: Scheduler
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
        """How far a trial goes that nothing stops."""
        return float(self.config["training"]["kimg"])

    @property
    def is_population(self) -> bool:
        """Whether trials are members of generations."""
        return self.scheduler in POPULATIONS


def check_same(old: Plan, new: Plan, free: set[str], where: str) -> None:
    """Raises UserError where a search at `where` was begun with another plan; `free` keys may differ."""
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
            f"{where}: this search was begun with other settings: {listed}; set them back to go on with it, or start "
            f"a new search with another --name"
        )


def _text(value: Any) -> str:
    return f"{value:.100}" if isinstance(value, str) else value_text(tuple(value) if isinstance(value, list) else value)
