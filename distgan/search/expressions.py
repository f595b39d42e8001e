"""Entries of a space: a value, a distribution or a multiple of another key, with or without a condition."""

from __future__ import annotations

import json
import keyword
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, TypeAlias, TypeGuard

Scalar: TypeAlias = bool | int | float | str | None

# A list is kept as a tuple.
Value: TypeAlias = Scalar | tuple[Scalar, ...]

# No number of a configuration is as large; below it products of two are far from overflow.
LARGEST = 1e15

# Words that are no strings without quotes.
DISTRIBUTION_NAMES = ("loguniform", "uniform", "randint", "lograndint", "quniform", "choice")

CONSTANTS: Mapping[str, bool | None] = {
    "null": None,
    "None": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is an integer or a float; true and false are neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, lists by their items; 1 is 1.0, and is not true."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def close(one: Any, other: Any) -> bool:
    """As `same`, for numbers up to the rounding of a product."""
    if is_number(one) and is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return same(one, other)


def number_text(number: int | float) -> str:
    """The shortest text of a number that reads as the same one: `1e-5`, `0.3`, `100`; of -0.0, `0`."""
    if isinstance(number, int) or number == 0:
        return str(int(number))
    short = f"{number:g}"
    text = short if float(short) == number else repr(number)
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def value_text(value: Value) -> str:
    """A value as one writes it in a space; `1.0` is written as 1."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return value if _is_word(value) else repr(value)
    return number_text(value)


def arguments(overrides: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` of each override, as `load_config` takes them; no digit of a number is lost."""
    return [f"{key}={_yaml_text(value)}" for key, value in overrides.items()]


def _is_word(text: str) -> bool:
    """Whether a string may stand without quotes."""
    return bool(_WORD.fullmatch(text)) and not keyword.iskeyword(text) and text not in {*CONSTANTS, *DISTRIBUTION_NAMES}


def _yaml_text(value: Any) -> str:
    """One line of YAML 1.1, in which a float has a point: 1.0e-05."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml_text, value))}]"
    if isinstance(value, float):
        digits, exponent, power = repr(value).partition("e")
        return f"{digits if '.' in digits else f'{digits}.0'}{exponent}{power}"
    return json.dumps(value, ensure_ascii=False)


_MOST_CHOICES = 100


class Distribution(ABC):
    """A probability distribution over values.

    Attributes:
        name: its name in a space.
        form: its notation in a space.
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
        """`factor` times a value that may be drawn, brought into the range; of a choice a neighbor of it."""

    @abstractmethod
    def probes(self) -> list[Value]:
        """Values that show whether all are allowed: the ends and one between them, or every choice."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The text in a space."""

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
        """The next one as they are written, for a factor below 1 the one before; at an end its only neighbor."""
        place = next(number for number, one in enumerate(self.values) if same(one, value))
        last, step = len(self.values) - 1, 1 if factor > 1 else -1
        moved = place + step if 0 <= place + step <= last else place - step
        return self.values[min(max(moved, 0), last)]

    def probes(self) -> list[Value]:
        return list(self.values)

    @property
    def text(self) -> str:
        return f"choice({', '.join(map(value_text, self.values))})"


@dataclass(frozen=True)
class Constant:
    """The same value in every trial."""

    value: Value

    @property
    def text(self) -> str:
        return value_text(self.value)


@dataclass(frozen=True)
class Product:
    """`scale` times the value of another key, times or divided by a draw where there is a distribution."""

    key: str
    scale: int | float = 1
    distribution: Distribution | None = None
    divided: bool = False

    @property
    def text(self) -> str:
        is_word = "." not in self.key and self.distribution is None
        scaled = f"{number_text(self.scale)} * {self.key}" if self.scale != 1 or is_word else self.key
        return f"{scaled} {'/' if self.divided else '*'} {self.distribution.text}" if self.distribution else scaled


Expression: TypeAlias = Distribution | Constant | Product


@dataclass(frozen=True)
class Condition:
    """A condition: another key has one of some values."""

    key: str
    values: tuple[Value, ...]

    def holds(self, value: object) -> bool:
        return any(same(value, one) for one in self.values)

    @property
    def text(self) -> str:
        if len(self.values) == 1:
            return f"{self.key} == {value_text(self.values[0])}"
        return f"{self.key} in ({', '.join(map(value_text, self.values))})"


@dataclass(frozen=True)
class Entry:
    """The entry of a key. Where its condition is false, the key keeps the configuration's value."""

    expression: Expression
    condition: Condition | None = None

    @property
    def distribution(self) -> Distribution | None:
        """The distribution that is drawn from, if any."""
        if isinstance(self.expression, Product):
            return self.expression.distribution
        return None if isinstance(self.expression, Constant) else self.expression

    def free_name(self, key: str) -> str:
        """The name of the draw: `key`, or `KEY.factor` for the factor of a product."""
        return f"{key}.factor" if isinstance(self.expression, Product) else key

    @property
    def references(self) -> list[str]:
        """The keys that its value depends on."""
        referred = [self.expression.key] if isinstance(self.expression, Product) else []
        return [*referred, *([self.condition.key] if self.condition else [])]

    @property
    def is_numeric(self) -> bool:
        """Whether its values can only be numbers."""
        if isinstance(self.expression, Constant):
            return is_number(self.expression.value)
        return not isinstance(self.expression, Choice) or all(map(is_number, self.expression.values))

    def can_have(self, values: tuple[Value, ...]) -> bool:
        """Whether it may have one of the values; always true of a product."""
        if isinstance(self.expression, Product):
            return True
        if isinstance(self.expression, Constant):
            return any(same(self.expression.value, value) for value in values)
        return any(self.expression.contains(value) for value in values)

    @property
    def text(self) -> str:
        return f"{self.expression.text} if {self.condition.text}" if self.condition else self.expression.text
