"""The axis of a searched key: where its values lie, from 0 to 1, and what is written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

from distgan.report.axes import plain
from distgan.report.search import words as search_words
from distgan.search.distributions import Choice
from distgan.search.expressions import Entry, Product
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Range
from distgan.search.record import SearchRecord
from distgan.search.space import Space
from distgan.search.trials import Trial
from distgan.search.values import Value, is_number, same, value_text

# Of the largest value of trials to the smallest, where good ones would be pressed together.
WIDE = 4.0
# Where a trial lies that has no value on an axis.
OUTSIDE = -0.13
_LOG_RATIO = 10
_MOST_MARKED = 8
_LONGEST = 14
# How far equal values are spread: of choices as a share of their distance.
_JITTER = 0.45
_ROOM = 0.04
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Scale:
    """Numbers from `low` to `high`, spread evenly or by their logarithm.

    Attributes:
        marked: all values that there may be, where they are few.
    """

    low: float
    high: float
    is_log: bool
    marked: tuple[float, ...] = ()

    def position(self, value: float) -> float:
        low, high, at = (math.log(one) if self.is_log else one for one in (self.low, self.high, value))
        return (at - low) / (high - low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions and labels of the few values that there may be, else of round numbers."""
        if self.marked:
            found = list(self.marked)
        elif self.is_log and self.high / self.low > _LOG_RATIO / 2:
            for subs in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
                found = self._inside(LogLocator(subs=subs, numticks=20).tick_values(self.low, self.high))
                if len(found) > 2:
                    break
        else:
            found = self._inside(MaxNLocator(5).tick_values(self.low, self.high))
        return [(self.position(value), _tick(value)) for value in found]

    def _inside(self, values: Sequence[float]) -> list[float]:
        margin = 1e-6 * (self.high - self.low)
        kept = [float(value) for value in values if self.low - margin <= value <= self.high + margin]
        return [value for value in kept if value > 0 or not self.is_log]


@dataclass(frozen=True)
class KeyAxis:
    """A searched key: its choices, or the scale of its numbers.

    Attributes:
        unset: whether trials leave the key as the configuration has it; they lie outside.
    """

    key: str
    name: str
    choices: tuple[Value, ...]
    scale: Scale | None
    unset: bool

    def position(self, trial: Trial) -> float:
        """From 0 to 1; `OUTSIDE` where the trial has no value."""
        if self.key not in trial.overrides:
            return OUTSIDE
        value = trial.overrides[self.key]
        if self.scale is not None:
            return self.scale.position(value)
        place = next((place for place, one in enumerate(self.choices) if same(one, value)), 0)
        return self._middle(place)

    def spread(self, trial: Trial) -> float:
        """The position, and of equal ones side by side: a little beside it, by the trial's number."""
        position = self.position(trial)
        aside = trial.number * _GOLDEN % 1 - 0.5
        if position == OUTSIDE:
            return position + _ROOM * aside
        if self.scale is None:
            return position + _JITTER * aside / len(self.choices)
        return position + (_ROOM * aside if self.scale.marked else 0.0)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        if self.scale is not None:
            found = self.scale.ticks
        else:
            found = [(self._middle(place), _short(value_text(one))) for place, one in enumerate(self.choices)]
        return [(OUTSIDE, "not set"), *found] if self.unset else found

    def _middle(self, place: int) -> float:
        return (place + 0.5) / len(self.choices)


def key_axes(record: SearchRecord) -> list[KeyAxis]:
    """One for each key that trials differ in."""
    space = Space.parse(record.plan.space)
    names = search_words.searched(record.plan)
    return [_axis(space, key, name, record.trials) for key, name in names.items()]


def _axis(space: Space, key: str, name: str, trials: Sequence[Trial]) -> KeyAxis:
    found = [trial.overrides[key] for trial in trials if key in trial.overrides]
    unset = len(found) < len(trials)
    entry = space.entries[key]
    if isinstance(entry.expression, Choice):
        return KeyAxis(key, name, entry.expression.values, None, unset)
    if isinstance(entry.expression, Range):
        drawn = entry.expression
        ends = [*found, drawn.low, drawn.high]
        scale = Scale(min(ends), max(ends), isinstance(drawn, LogUniform | LogRandInt), _few(drawn))
        return KeyAxis(key, name, (), scale, unset)
    return KeyAxis(key, name, (), _scale_of(space, entry, [one for one in found if is_number(one)]), unset)


def _few(drawn: Range) -> tuple[float, ...]:
    """All values of a range of steps, where they are few."""
    values = drawn.grid(_MOST_MARKED + 1) if isinstance(drawn, QUniform | RandInt) else []
    return tuple(value for value in values if is_number(value)) if len(values) <= _MOST_MARKED else ()


def _scale_of(space: Space, entry: Entry, values: Sequence[float]) -> Scale:
    """Of numbers that follow from others: as wide as they are, by their logarithm where their origin is."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    is_log = low > 0 and (high / low > _LOG_RATIO or _is_log(space, entry))
    if low == high:
        low, high = (low / 2, high * 2) if is_log else (low - 0.5, high + 0.5)
    return Scale(low, high, is_log)


def _is_log(space: Space, entry: Entry) -> bool:
    while isinstance(entry.expression, Product) and entry.expression.key in space.entries:
        entry = space.entries[entry.expression.key]
    return isinstance(entry.expression, LogUniform | LogRandInt)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _tick(value: float) -> str:
    return plain(value, None) if value == 0 or 1e-3 <= abs(value) < 1e6 else search_words.value_shown(value)
