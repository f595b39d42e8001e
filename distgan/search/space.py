"""The space of a search: an entry for each searched key; turns draws into a trial's overrides."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from random import Random
from typing import Any

import yaml

from distgan.config.load import flatten
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.search.expressions import (
    LARGEST,
    Condition,
    Constant,
    Distribution,
    Entry,
    Product,
    Value,
    close,
    is_number,
    number_text,
    value_text,
)
from distgan.search.parsing import parse_entry

_KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

_MOST_ENTRIES = 100

_MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Space:
    """Entries by key, and the configuration that the search starts from.

    Attributes:
        entries: in the order in which they were given.
        base: the configuration's own values by dotted key; empty until the space is `checks.validated`.
    """

    entries: Mapping[str, Entry]
    base: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, entries: Mapping[str, str]) -> Space:
        """A space from the text of each entry (`distgan.search.parsing`), still to be validated.

        Raises UserError for what cannot be read, entries that depend on each other in a circle, a product of a key
        whose values are no numbers, and a space in which nothing is drawn.
        """
        if len(entries) > _MOST_ENTRIES:
            raise UserError(f"the space has {len(entries)} entries; {_MOST_ENTRIES} are the most")
        for key in entries:
            if not _KEY.fullmatch(key):
                raise UserError(
                    f"space: {key!r:.80} is no key; write a dotted one, as optimizer.generator.lr"
                    f"{'; in braces YAML ends an expression at its comma: quote it' if ')' in key else ''}"
                )
        space = cls({key: parse_entry(key, text) for key, text in entries.items()})
        space._check_references()
        if not space.free:
            raise UserError(
                "the space has nothing to search: at least one entry is a distribution, as in "
                "optimizer.generator.lr=loguniform(1e-5, 1e-3)"
            )
        return space

    @property
    def keys(self) -> list[str]:
        """The keys that trials may differ in from the configuration."""
        return list(self.entries)

    @cached_property
    def free(self) -> dict[str, Distribution]:
        """The distributions that a sampler draws from, independently, by name.

        The name is the key; that of a product's factor is `KEY.factor`.
        """
        drawn = {entry.free_name(key): entry.distribution for key, entry in self.entries.items()}
        return {name: distribution for name, distribution in drawn.items() if distribution is not None}

    @property
    def varying(self) -> list[str]:
        """The keys whose values may differ between trials."""
        found: set[str] = set()
        for key in self._order:
            entry = self.entries[key]
            if entry.distribution is not None or found.intersection(entry.references):
                found.add(key)
        return [key for key in self.entries if key in found]

    def overrides(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a trial's keys from a draw of everything in `free`; lists are lists.

        Keys whose condition is false are left out. Raises UserError for a product of a key that the configuration
        does not have then, and for one beyond all use.
        """
        values: dict[str, Any] = {}
        for key in self._order:
            entry = self.entries[key]
            if entry.condition is None or self._holds(entry.condition, values):
                values[key] = self._value(key, entry, sampled, values)
        return {key: _plain(values[key]) for key in self.entries if key in values}

    def sample(self, seed: int, number: int) -> dict[str, Value]:
        """Draw `number` of a search with a seed: a function of both and of each name, not of the other entries."""
        return {name: drawn.sample(Random(f"{seed}/{number}/{name}")) for name, drawn in self.free.items()}

    def grid(self, points: int) -> list[dict[str, Value]]:
        """Every combination of `points` values of each range and all of each choice, the last name fastest.

        Of combinations that make the same trial, as conditions leave keys out, the first stays. Raises UserError
        for more than 10,000 combinations.
        """
        if points < 1:
            raise UserError(f"a grid of {points} points a range: there is at least 1")
        axes = [drawn.grid(min(points, _MOST_TRIALS + 1)) for drawn in self.free.values()]
        count = math.prod(map(len, axes))
        if count > _MOST_TRIALS:
            raise UserError(
                f"the grid has {count:,} combinations, {_MOST_TRIALS:,} are the most: take fewer points or entries, "
                f"or draw trials at random"
            )
        unique: dict[str, dict[str, Value]] = {}
        for values in itertools.product(*axes):
            point = dict(zip(self.free, values, strict=True))
            unique.setdefault(repr(self.overrides(point)), point)
        return list(unique.values())

    def nearest(self, values: Mapping[str, Any]) -> dict[str, Value]:
        """The draw nearest to a configuration's values by dotted key; the middle for what it does not have."""
        return {
            entry.free_name(key): entry.distribution.nearest(_wanted(key, entry, values))
            for key, entry in self.entries.items()
            if entry.distribution is not None
        }

    def outside(self, config: Config) -> list[str]:
        """The keys whose value in a configuration is outside the space."""
        configured = flatten(config.model_dump(mode="json"))
        resolved = self.overrides(self.nearest(configured))
        return [key for key, value in resolved.items() if key not in configured or not close(value, configured[key])]

    def initial(self, config: Config) -> dict[str, Value] | None:
        """The draw that is the configuration itself, for a search to begin with; None where there is none.

        Values outside their range give None: the trial would not be the configuration.
        """
        return None if self.outside(config) else self.nearest(flatten(config.model_dump(mode="json")))

    def text(self) -> str:
        """YAML that reads as the same space."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True, width=1000)

    def as_dict(self) -> dict[str, str]:
        """Each key with the one text of its entry; `Space.parse` takes it."""
        return {key: entry.text for key, entry in self.entries.items()}

    @cached_property
    def _order(self) -> list[str]:
        """The keys, each after those that its value depends on."""
        graph = {
            key: [other for other in entry.references if other in self.entries] for key, entry in self.entries.items()
        }
        return list(TopologicalSorter(graph).static_order())

    def _check_references(self) -> None:
        try:
            self._order  # noqa: B018
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            raise UserError(
                f"space: entries depend on each other in a circle: {circle:.300}; write one of them without"
            ) from None
        for key, entry in self.entries.items():
            if isinstance(entry.expression, Product) and entry.expression.key in self.entries:
                other = self.entries[entry.expression.key]
                if not other.is_numeric:
                    raise UserError(
                        f"{key:.80}: `{entry.text:.100}`: {entry.expression.key} is no number: its entry is "
                        f"`{other.text:.100}`"
                    )

    def _holds(self, condition: Condition, values: Mapping[str, Any]) -> bool:
        if condition.key in values:
            return condition.holds(values[condition.key])
        return condition.key in self.base and condition.holds(self.base[condition.key])

    def _value(self, key: str, entry: Entry, sampled: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        expression = entry.expression
        drawn = _builtin(sampled[entry.free_name(key)]) if entry.distribution else None
        if isinstance(expression, Constant):
            return expression.value
        if isinstance(expression, Distribution):
            return drawn
        other = values[expression.key] if expression.key in values else self.base.get(expression.key)
        if not is_number(other):
            raise UserError(
                f"{key:.80}: `{entry.text:.100}`: {expression.key} is {value_text(other)}, no number, in some trials; "
                f"give the product the condition under which it is one"
            )
        product = expression.scale * other
        if drawn is not None:
            product = product / drawn if expression.divided else product * drawn
        if not abs(product) <= LARGEST:
            raise UserError(f"{key:.80}: `{entry.text:.100}`: {number_text(product)} is beyond ±{number_text(LARGEST)}")
        return product


def _wanted(key: str, entry: Entry, configured: Mapping[str, Any]) -> Any:
    """The draw that would give a key its own value; None where there is none."""
    value = configured.get(key)
    if not isinstance(entry.expression, Product):
        return value
    other = configured.get(entry.expression.key)
    if not (is_number(value) and is_number(other)):
        return None
    multiple = entry.expression.scale * other
    above, below = (multiple, value) if entry.expression.divided else (value, multiple)
    return above / below if below else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _builtin(value: Any) -> Any:
    """A NumPy number as a Python number."""
    return value.item() if hasattr(value, "item") else value
