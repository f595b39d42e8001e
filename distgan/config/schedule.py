"""Schedules: numbers that change during training, each a pure function of kimg, so that a resume needs no state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

# The members of `Scheduled`, as pydantic's errors name them.
NUMBER, SCHEDULE = "number", "schedule"


class Schedule(BaseModel):
    """From one number to another: constant until `from_kimg`, constant again from `until_kimg` on.

    Compared with a number, a schedule is what all its values are. One that only begins or ends at a bound counts as
    above it, so that a learning rate, which is above 0, may come from 0 or go there.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True
    )

    from_: float = Field(alias="from")
    to: float
    from_kimg: Annotated[float, Ge(0), Le(1e9)] = 0.0
    until_kimg: Annotated[float, Gt(0), Le(1e9)]
    shape: Literal["cosine", "linear"] = "cosine"

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        names = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = [str(key) for key in values if key not in {*names, "from_"}] if isinstance(values, Mapping) else []
        if unknown:
            raise ValueError(f"a schedule has no key {unknown[0]!r:.80}; its keys are {', '.join(names)}")
        return values

    @model_validator(mode="after")
    def _has_a_length(self) -> Schedule:
        if self.until_kimg <= self.from_kimg:
            raise ValueError(f"until_kimg={self.until_kimg:g} must be more than from_kimg={self.from_kimg:g}")
        return self

    def at(self, kimg: float) -> float:
        """The value after `kimg` thousand real images, the same to the last digit on every machine."""
        start, end = 1000 * self.from_kimg, 1000 * self.until_kimg
        left = (end - round(1000 * kimg)) / (end - start)
        if left >= 1:
            return self.from_
        if left <= 0:
            return self.to
        share = left if self.shape == "linear" else _sine(0.5 * math.pi * left) ** 2
        return self.to + (self.from_ - self.to) * share

    def __gt__(self, bound: float) -> bool:
        return max(self.from_, self.to) > bound and self >= bound

    def __ge__(self, bound: float) -> bool:
        return min(self.from_, self.to) >= bound

    def __lt__(self, bound: float) -> bool:
        return max(self.from_, self.to) < bound

    def __le__(self, bound: float) -> bool:
        return max(self.from_, self.to) <= bound


@dataclass
class Variable:
    """A number that a run sets itself as it trains, and that its checkpoints keep. `name` tells it from others."""

    name: str
    value: float = 0.0

    def at(self, kimg: float) -> float:
        """The value now, whatever `kimg` is."""
        return self.value


def _kind(value: Any) -> str:
    return SCHEDULE if isinstance(value, Mapping | Schedule) else NUMBER


# The type of a configuration key, or of a component's option, that may change during training.
Scheduled: TypeAlias = Annotated[
    Annotated[float, Tag(NUMBER)] | Annotated[Schedule, Tag(SCHEDULE)], Discriminator(_kind)
]


def value_at(number: float | Schedule | Variable, kimg: float) -> float:
    """A number, or the value of a schedule or variable after `kimg` thousand real images."""
    return number.at(kimg) if isinstance(number, Schedule | Variable) else number


def is_schedule(value: Any) -> bool:
    """Whether a plain value of a configuration is a schedule."""
    return isinstance(value, Mapping) and {"from", "to", "until_kimg"} <= value.keys()


def find_schedules(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Schedule]]:
    """All schedules of a configuration, by dotted key."""
    for name, value in section:
        if isinstance(value, Schedule):
            yield f"{prefix}{name}", value
        elif isinstance(value, BaseModel):
            yield from find_schedules(value, f"{prefix}{name}.")


def _sine(x: float) -> float:
    """The sine on [0, π/2] by its series. The last digit of `math.sin` depends on the processor; ranks must agree."""
    total = term = x
    for n in range(3, 26, 2):
        term *= -x * x / (n * (n - 1))
        total += term
    return total
