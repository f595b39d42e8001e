"""Figures of trials against the values of their searched keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from distgan.search import trial_text
from distgan.search.expressions import Choice, Entry, Product, Value, is_number, same, value_text
from distgan.search.plan import SearchPlan
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Range
from distgan.search.ranking import Ranked, leaderboard
from distgan.search.record import SearchRecord, Trial
from distgan.search.space import Space
from distgan.tracking.plots import GRAY, ORANGE, PINK, is_wide, note, plain, scale, style

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
        marked: all possible values, where they are few.
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
        """Positions and labels: of all values where they are few, else of round numbers."""
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
        """The position from 0 to 1; `OUTSIDE` where the trial has no value."""
        if self.key not in trial.overrides:
            return OUTSIDE
        value = trial.overrides[self.key]
        if self.scale is not None:
            return self.scale.position(value)
        place = next((place for place, one in enumerate(self.choices) if same(one, value)), 0)
        return self._middle(place)

    def spread(self, trial: Trial) -> float:
        """The position, shifted a little by the trial's number where many are equal."""
        position = self.position(trial)
        shift = trial.number * _GOLDEN % 1 - 0.5
        if position == OUTSIDE:
            return position + _ROOM * shift
        if self.scale is None:
            return position + _JITTER * shift / len(self.choices)
        return position + (_ROOM * shift if self.scale.marked else 0.0)

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
    """The axes of all keys that trials differ in."""
    space = Space.parse(record.plan.space)
    names = trial_text.searched(record.plan)
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
    """All values of a stepped range, where they are few."""
    values = drawn.grid(_MOST_MARKED + 1) if isinstance(drawn, QUniform | RandInt) else []
    return tuple(value for value in values if is_number(value)) if len(values) <= _MOST_MARKED else ()


def _scale_of(space: Space, entry: Entry, values: Sequence[float]) -> Scale:
    """The axis of numbers that are multiples of others: their own range, logarithmic where the other key's is."""
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
    return plain(value, None) if value == 0 or 1e-3 <= abs(value) < 1e6 else trial_text.value_shown(value)


_COLUMNS = 3


def parallel_figure(record: SearchRecord) -> Figure:
    """Parallel axes: one for each key and one for the value. Better trials are darker, those without a value dashed."""
    keys, ranked = key_axes(record), leaderboard(record.plan, record.trials)
    figure = Figure(figsize=(max(9.0, 1.9 * (len(keys) + 1)), 5.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(record.name, fontsize=13, fontweight="bold")
    without_value = _without_value(record, ranked)
    if not ranked and not without_value:
        axes.set_axis_off()
        note(axes, "no trial has ended")
        return figure
    value = value_scale([one.value for one in ranked])
    titles = [*(one.name for one in keys), f"{record.plan.metric}\n{trial_text.direction(record.plan)}"]
    ticks = [one.ticks for one in keys] + [
        ([(OUTSIDE, "none")] if without_value else []) + (value.ticks if ranked else [])
    ]
    _axes_of_keys(axes, titles, ticks)
    places = range(len(titles))
    fading = 2 + len(ranked) / 30
    for trial in without_value:
        line = [*(one.spread(trial) for one in keys), OUTSIDE]
        axes.plot(places, line, color=PINK, linewidth=0.8, linestyle="--", alpha=0.6, zorder=2)
    for rank, one in reversed(list(enumerate(ranked))):
        line = [*(key.spread(one.trial) for key in keys), value.position(one.value)]
        goodness = 1 - rank / max(len(ranked) - 1, 1)
        color = ORANGE if rank == 0 else colormaps["viridis_r"](0.1 + 0.85 * goodness)
        width, alpha = (3.0, 1.0) if rank == 0 else (0.7 + 1.1 * goodness, 0.2 + 0.7 * goodness**fading)
        axes.plot(places, line, color=color, linewidth=width, alpha=alpha, zorder=3 + goodness)
    _parallel_legend(axes, ranked, bool(without_value))
    return figure


def keys_figure(record: SearchRecord) -> Figure:
    """A panel for each key: the value of each trial against it, colored by the trial's kimg."""
    keys, ranked = key_axes(record), leaderboard(record.plan, record.trials)
    columns = min(_COLUMNS, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(max(3.6 * columns, 5.0) + 1, 3.1 * rows + 0.6), dpi=130, layout="constrained")
    figure.suptitle(record.name, fontsize=13, fontweight="bold")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    without_value = _without_value(record, ranked)
    colors = Normalize(0, max((one.trial.kimg for one in ranked), default=0.0) or record.plan.kimg)
    for place, (axes, key) in enumerate(zip(panels, keys, strict=False)):
        style(axes, record.plan.metric if place % columns == 0 else "")
        _key_ticks(axes, key)
        _key_points(axes, key, ranked, without_value, record.plan, colors)
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    if ranked:
        shown = ScalarMappable(colors, "viridis_r")
        figure.colorbar(shown, ax=panels.tolist(), label="kimg trained", shrink=0.8, aspect=30)
    return figure


def _without_value(record: SearchRecord, ranked: Sequence[Ranked]) -> list[Trial]:
    """The trials that ended without a value."""
    known = {one.trial.number for one in ranked}
    return [trial for trial in record.trials if trial.ended and trial.repeats is None and trial.number not in known]


def value_scale(values: Sequence[float]) -> Scale:
    """The axis of the values of trials."""
    if not values:
        return Scale(0.0, 1.0, False)
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) / 2 or 1.0
        return Scale(low - margin, high + margin, False)
    return Scale(low, high, is_wide(np.array(values), WIDE))


def _axes_of_keys(axes: Axes, titles: Sequence[str], ticks: Sequence[Sequence[tuple[float, str]]]) -> None:
    """Vertical axes side by side, each with its own labels."""
    last = len(titles) - 1
    lowest = min((position for one in ticks for position, _ in one), default=0.0)
    axes.set_ylim(min(lowest, 0.0) - 0.04, 1.04)
    axes.set_xlim(-0.35, last + 0.45)
    axes.set_xticks(range(len(titles)), titles)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, labelsize=10)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    for place, one in enumerate(ticks):
        axes.plot([place, place], [0, 1], color=GRAY, linewidth=1.0, zorder=5)
        for position, label in one:
            axes.plot([place - 0.02, place + 0.02], [position, position], color=GRAY, linewidth=1.0, zorder=5)
            side, align = (1, "left") if place == last else (-1, "right")
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            axes.text(place + 0.04 * side, position, label, ha=align, va="center", fontsize=8, bbox=box, zorder=6)


def _parallel_legend(axes: Axes, ranked: Sequence[Ranked], without_value: bool) -> None:
    if ranked:
        axes.plot([], [], color=ORANGE, linewidth=3.0, label=f"best: trial {ranked[0].trial.number}")
    if len(ranked) > 1:
        axes.plot([], [], color=colormaps["viridis_r"](0.95), linewidth=1.8, label="the better, the darker")
    if without_value:
        axes.plot([], [], color=PINK, linewidth=0.8, linestyle="--", label="without a value")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False, fontsize=9)


def _key_ticks(axes: Axes, key: KeyAxis) -> None:
    positions, labels = zip(*key.ticks, strict=True) if key.ticks else ((), ())
    turned = sum(map(len, labels)) > 26
    axes.set_xticks(positions, labels, fontsize=8, rotation=30 if turned else 0, ha="right" if turned else "center")
    axes.set_xlim((OUTSIDE if key.unset else 0.0) - 0.07, 1.07)
    axes.set_xlabel(key.name)


def _key_points(
    axes: Axes,
    key: KeyAxis,
    ranked: Sequence[Ranked],
    without_value: Sequence[Trial],
    plan: SearchPlan,
    colors: Normalize,
) -> None:
    if not ranked:
        note(axes, "no trial has a value")
        return
    values = np.array([one.value for one in ranked])
    scale(axes, values, WIDE)
    map_of = colormaps["viridis_r"]
    for rank, one in enumerate(ranked):
        place = key.spread(one.trial), one.value
        if one.std is not None:
            axes.errorbar(*place, yerr=one.std, color=GRAY, linewidth=1.0, capsize=2, zorder=2)
        color = map_of(colors(one.trial.kimg))
        axes.plot(*place, "o", color=color, markersize=6, markeredgecolor="white", markeredgewidth=0.5, zorder=3)
        if rank == 0:
            axes.plot(*place, "*", color=ORANGE, markersize=14, markeredgecolor="white", zorder=4, clip_on=False)
    worst = 0.02 if plan.higher_is_better else 0.98
    for trial in without_value:
        axes.plot(
            key.spread(trial),
            worst,
            "x",
            color=PINK,
            markersize=7,
            markeredgewidth=1.8,
            transform=axes.get_xaxis_transform(),
            zorder=3,
        )
