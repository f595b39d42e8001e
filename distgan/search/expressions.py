"""What an entry of a space is: a distribution, a plain value or a multiple of another key, perhaps under a condition.

Every node has the text that parses to it (`distgan.search.parsing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from distgan.search.distributions import Choice, Distribution
from distgan.search.values import Value, is_number, number_text, same, value_text


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
    """That another key has one of some values."""

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
    """What a key is in the trials. Where the condition is false, the key is left as the configuration has it."""

    expression: Expression
    condition: Condition | None = None

    @property
    def distribution(self) -> Distribution | None:
        """What is drawn for it, if anything is."""
        if isinstance(self.expression, Product):
            return self.expression.distribution
        return None if isinstance(self.expression, Constant) else self.expression

    def free_name(self, key: str) -> str:
        """What the draw is called in the entry of `key`: by the key, the factor of a product by `KEY.factor`."""
        return f"{key}.factor" if isinstance(self.expression, Product) else key

    @property
    def references(self) -> list[str]:
        """The keys whose values its own depends on."""
        referred = [self.expression.key] if isinstance(self.expression, Product) else []
        return [*referred, *([self.condition.key] if self.condition else [])]

    @property
    def is_numeric(self) -> bool:
        """Whether its values can only be numbers."""
        if isinstance(self.expression, Constant):
            return is_number(self.expression.value)
        return not isinstance(self.expression, Choice) or all(map(is_number, self.expression.values))

    def can_have(self, values: tuple[Value, ...]) -> bool:
        """Whether one of the values may be its own; of a product that is not known."""
        if isinstance(self.expression, Product):
            return True
        if isinstance(self.expression, Constant):
            return any(same(self.expression.value, value) for value in values)
        return any(self.expression.contains(value) for value in values)

    @property
    def text(self) -> str:
        return f"{self.expression.text} if {self.condition.text}" if self.condition else self.expression.text
