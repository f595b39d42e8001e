"""What a value of a search may be drawn from: a choice here, ranges of numbers in `distgan.search.ranges`.

Each is a function of one uniform number, so that a sample is its seed's. The constructors raise ValueError, saying what
is wrong, for a choice or a range without a value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from distgan.search.values import Value, close, is_number, same, value_text

_MOST_CHOICES = 100


class Distribution(ABC):
    """Values and how likely each is.

    Attributes:
        name: as it is called in a space.
        form: as it is written in a space.
    """

    name: ClassVar[str]
    form: ClassVar[str]

    @abstractmethod
    def at(self, quantile: float) -> Value:
        """The value at a quantile from 0 to 1: at 0 the first, at 1 the last."""

    @abstractmethod
    def grid(self, points: int) -> list[Value]:
        """At most so many values, evenly spaced in the distribution's own scale from end to end; one: the middle."""

    @abstractmethod
    def contains(self, value: object) -> bool:
        """Whether it may be drawn."""

    @abstractmethod
    def nearest(self, value: object) -> Value:
        """The value that may be drawn nearest to one that perhaps may not; any for what cannot be compared."""

    @abstractmethod
    def perturbed(self, value: Value, factor: float) -> Value:
        """`factor` times a value that may be drawn, brought into the range; of a choice a neighbour of it."""

    @abstractmethod
    def probes(self) -> list[Value]:
        """Values that show whether all are allowed: the ends and one between them, or every choice."""

    @property
    @abstractmethod
    def text(self) -> str:
        """As it is written in a space."""

    def sample(self, rng: Random) -> Value:
        """A draw; it takes one number of `rng`."""
        return self.at(rng.random())


@dataclass(frozen=True)
class Choice(Distribution):
    """Some values of any kind, each as likely as any other."""

    values: tuple[Value, ...]

    name = "choice"
    form = "choice(VALUE, VALUE, …)"

    def __post_init__(self) -> None:
        if not 0 < len(self.values) <= _MOST_CHOICES:
            raise ValueError(f"it has {len(self.values)} values, and may have 1 to {_MOST_CHOICES}")
        for place, value in enumerate(self.values):
            if any(same(value, earlier) for earlier in self.values[:place]):
                raise ValueError(f"{value_text(value):.40} is there twice")

    def at(self, quantile: float) -> Value:
        return self.values[min(int(quantile * len(self.values)), len(self.values) - 1)]

    def grid(self, points: int) -> list[Value]:
        """All values, however many points."""
        return list(self.values)

    def contains(self, value: object) -> bool:
        return any(same(value, one) for one in self.values)

    def nearest(self, value: object) -> Value:
        numbers = [one for one in self.values if is_number(one)]
        if is_number(value) and numbers:
            return min(numbers, key=lambda one: abs(one - value))
        return next((one for one in self.values if close(one, value)), self.at(0.5))

    def perturbed(self, value: Value, factor: float) -> Value:
        """The next one as they are written, for a factor below 1 the one before; at an end its only neighbour."""
        place = next(number for number, one in enumerate(self.values) if same(one, value))
        last, step = len(self.values) - 1, 1 if factor > 1 else -1
        moved = place + step if 0 <= place + step <= last else place - step
        return self.values[min(max(moved, 0), last)]

    def probes(self) -> list[Value]:
        return list(self.values)

    @property
    def text(self) -> str:
        return f"choice({', '.join(map(value_text, self.values))})"
