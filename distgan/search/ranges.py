"""Ranges of numbers, both ends included."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from distgan.search.expressions import Distribution, Value, is_number, number_text

# A quantile that is no end, no middle and no simple fraction.
_INSIDE = 0.382


@dataclass(frozen=True)
class Range(Distribution):
    """Numbers from `low` to `high`, both included."""

    low: int | float
    high: int | float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(
                f"the range is empty: {number_text(self.low)} is not below {number_text(self.high)}; "
                f"a single value is written without {self.name}"
            )

    def contains(self, value: object) -> bool:
        return is_number(value) and self.low <= value <= self.high

    def nearest(self, value: object) -> Value:
        return min(max(value, self.low), self.high) if is_number(value) else self.at(0.5)

    def perturbed(self, value: Value, factor: float) -> Value:
        assert is_number(value)
        return self.nearest(value * factor)

    def probes(self) -> list[Value]:
        return [self.low, self.at(_INSIDE), self.high]

    def grid(self, points: int) -> list[Value]:
        tidy = [self._tidy(self.at(quantile)) for quantile in _quantiles(points)]
        return [self.nearest(value) for value in tidy]

    @property
    def text(self) -> str:
        return f"{self.name}({', '.join(number_text(getattr(self, field.name)) for field in fields(self))})"

    @staticmethod
    def _tidy(value: Any) -> float:
        """The number without its last digits, which are rounding errors."""
        return float(f"{value:.12g}")


class ContinuousRange(Range):
    """Every number between the ends."""

    @abstractmethod
    def quantile(self, value: float) -> float:
        """The inverse of `at`: the quantile of a value, from 0 to 1."""


@dataclass(frozen=True)
class Uniform(ContinuousRange):
    """Every number of the range as likely as any other."""

    name = "uniform"
    form = "uniform(LOW, HIGH)"

    def at(self, quantile: float) -> Value:
        return self.nearest(self.low + quantile * (self.high - self.low))

    def quantile(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class LogUniform(ContinuousRange):
    """Positive numbers, every order of magnitude as likely as any other: the logarithm is uniform."""

    name = "loguniform"
    form = "loguniform(LOW, HIGH)"

    def __post_init__(self) -> None:
        _require_logarithm(self.name, self.low)
        super().__post_init__()

    def at(self, quantile: float) -> Value:
        if quantile in {0, 1}:
            return self.high if quantile else self.low
        return self.nearest(math.exp((1 - quantile) * math.log(self.low) + quantile * math.log(self.high)))

    def quantile(self, value: float) -> float:
        return math.log(value / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True)
class RandInt(Range):
    """Integers from `low` to `high`, both ends included, each as likely as any other."""

    low: int
    high: int

    name = "randint"
    form = "randint(LOW, HIGH)"

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if not isinstance(end, int):
                raise ValueError(f"{number_text(end)} is no integer; both ends of {self.name} are, and are included")
        super().__post_init__()

    def at(self, quantile: float) -> Value:
        return min(self.low + int(quantile * (self.high - self.low + 1)), self.high)

    def grid(self, points: int) -> list[Value]:
        every = [round(self.low + quantile * (self.high - self.low)) for quantile in _quantiles(points)]
        return list(dict.fromkeys(every))

    def contains(self, value: object) -> bool:
        return is_number(value) and self.low <= value <= self.high and float(value).is_integer()

    def nearest(self, value: object) -> Value:
        return round(min(max(value, self.low), self.high)) if is_number(value) else self.at(0.5)

    def perturbed(self, value: Value, factor: float) -> Value:
        """As `Distribution.perturbed`, by at least 1 unless the value is at that end."""
        assert is_number(value)
        moved = self.nearest(value * factor)
        return moved if moved != value else self.nearest(value + (1 if factor > 1 else -1))

    def probes(self) -> list[Value]:
        return list(dict.fromkeys([self.low, self.low + 1, self.high]))


@dataclass(frozen=True)
class LogRandInt(RandInt):
    """Integers from `low`, at least 1, to `high`, both ends included; k as often as log(1 + 1/k) says."""

    name = "lograndint"
    form = "lograndint(LOW, HIGH)"

    def __post_init__(self) -> None:
        _require_logarithm(self.name, self.low)
        super().__post_init__()

    def at(self, quantile: float) -> Value:
        return self.nearest(math.floor(self.low * ((self.high + 1) / self.low) ** quantile))

    def grid(self, points: int) -> list[Value]:
        every = [self.nearest(self.low * (self.high / self.low) ** quantile) for quantile in _quantiles(points)]
        return list(dict.fromkeys(every))


@dataclass(frozen=True)
class QUniform(Range):
    """Multiples of `step` from `low` to `high`, which are multiples themselves; each as likely as any other.

    They are integers where all three numbers are.
    """

    step: int | float

    name = "quniform"
    form = "quniform(LOW, HIGH, STEP)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step > 0:
            raise ValueError(f"the step {number_text(self.step)} is not above 0")
        for end in (self.low, self.high):
            if (_exact(end) / _exact(self.step)).denominator != 1:
                raise ValueError(f"{number_text(end)} is no multiple of the step {number_text(self.step)}")

    def at(self, quantile: float) -> Value:
        return self._multiple(min(self._first + int(quantile * (self._last - self._first + 1)), self._last))

    def grid(self, points: int) -> list[Value]:
        places = [round(self._first + quantile * (self._last - self._first)) for quantile in _quantiles(points)]
        return [self._multiple(place) for place in dict.fromkeys(places)]

    def contains(self, value: object) -> bool:
        """Whether the value is a multiple of the step, up to the rounding of a float."""
        return is_number(value) and self.low <= value <= self.high and value == self.nearest(value)

    def nearest(self, value: object) -> Value:
        if not is_number(value):
            return self.at(0.5)
        within = min(max(value, self.low), self.high)
        return self._multiple(round(_exact(within) / _exact(self.step)))

    def perturbed(self, value: Value, factor: float) -> Value:
        """As `Distribution.perturbed`, by at least a step unless the value is at that end."""
        assert is_number(value)
        moved = self.nearest(value * factor)
        return moved if moved != value else self.nearest(value + (self.step if factor > 1 else -self.step))

    def probes(self) -> list[Value]:
        return [self._multiple(place) for place in dict.fromkeys([self._first, self._first + 1, self._last])]

    @property
    def _first(self) -> int:
        return int(_exact(self.low) / _exact(self.step))

    @property
    def _last(self) -> int:
        return int(_exact(self.high) / _exact(self.step))

    def _multiple(self, place: int) -> int | float:
        exact = place * _exact(self.step)
        return (
            int(exact) if all(isinstance(number, int) for number in (self.low, self.high, self.step)) else float(exact)
        )


def _require_logarithm(name: str, low: int | float) -> None:
    if not low > 0:
        raise ValueError(f"{name} has a logarithmic scale, so {number_text(low)} must be above 0")


def _quantiles(points: int) -> Sequence[float]:
    return [0.5] if points == 1 else [place / (points - 1) for place in range(points)]


def _exact(number: int | float) -> Fraction:
    """The number as an exact decimal fraction: 0.1 is a tenth."""
    return Fraction(str(number))
