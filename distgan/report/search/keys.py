"""The values of trials against those of their searched keys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from distgan.report.axes import GREY, ORANGE, PINK, is_wide, note, scale, style
from distgan.report.search import words as search_words
from distgan.report.search.axes import OUTSIDE, WIDE, KeyAxis, Scale, key_axes
from distgan.search.plan import Plan
from distgan.search.ranking import Ranked, leaderboard
from distgan.search.record import SearchRecord
from distgan.search.trials import Trial

_COLUMNS = 3


def parallel_figure(record: SearchRecord) -> Figure:
    """An axis a key and one for the value, a line a trial: the better, the darker; those without a value dashed."""
    keys, ranked = key_axes(record), leaderboard(record.plan, record.trials)
    figure = Figure(figsize=(max(9.0, 1.9 * (len(keys) + 1)), 5.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(record.name, fontsize=13, fontweight="bold")
    lost = _lost(record, ranked)
    if not ranked and not lost:
        axes.set_axis_off()
        note(axes, "no trial has ended")
        return figure
    value = _value_scale([one.value for one in ranked])
    titles = [*(one.name for one in keys), f"{record.plan.metric}\n{search_words.direction(record.plan)}"]
    ticks = [one.ticks for one in keys] + [([(OUTSIDE, "none")] if lost else []) + (value.ticks if ranked else [])]
    _axes_of_keys(axes, titles, ticks)
    places = range(len(titles))
    fading = 2 + len(ranked) / 30
    for trial in lost:
        line = [*(one.spread(trial) for one in keys), OUTSIDE]
        axes.plot(places, line, color=PINK, linewidth=0.8, linestyle="--", alpha=0.6, zorder=2)
    for rank, one in reversed(list(enumerate(ranked))):
        line = [*(key.spread(one.trial) for key in keys), value.position(one.value)]
        goodness = 1 - rank / max(len(ranked) - 1, 1)
        colour = ORANGE if rank == 0 else colormaps["viridis_r"](0.1 + 0.85 * goodness)
        width, alpha = (3.0, 1.0) if rank == 0 else (0.7 + 1.1 * goodness, 0.2 + 0.7 * goodness**fading)
        axes.plot(places, line, color=colour, linewidth=width, alpha=alpha, zorder=3 + goodness)
    _parallel_legend(axes, ranked, bool(lost))
    return figure


def keys_figure(record: SearchRecord) -> Figure:
    """A panel a key: the value of each trial against it, coloured by how far it was trained."""
    keys, ranked = key_axes(record), leaderboard(record.plan, record.trials)
    columns = min(_COLUMNS, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(max(3.6 * columns, 5.0) + 1, 3.1 * rows + 0.6), dpi=130, layout="constrained")
    figure.suptitle(record.name, fontsize=13, fontweight="bold")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    lost = _lost(record, ranked)
    colours = Normalize(0, max((one.trial.kimg for one in ranked), default=0.0) or record.plan.kimg)
    for place, (axes, key) in enumerate(zip(panels, keys, strict=False)):
        style(axes, record.plan.metric if place % columns == 0 else "")
        _key_ticks(axes, key)
        _key_points(axes, key, ranked, lost, record.plan, colours)
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    if ranked:
        shown = ScalarMappable(colours, "viridis_r")
        figure.colorbar(shown, ax=panels.tolist(), label="kimg trained", shrink=0.8, aspect=30)
    return figure


def _lost(record: SearchRecord, ranked: Sequence[Ranked]) -> list[Trial]:
    """The trials that ended without a value."""
    known = {one.trial.number for one in ranked}
    return [trial for trial in record.trials if trial.ended and trial.repeats is None and trial.number not in known]


def _value_scale(values: Sequence[float]) -> Scale:
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
        axes.plot([place, place], [0, 1], color=GREY, linewidth=1.0, zorder=5)
        for position, label in one:
            axes.plot([place - 0.02, place + 0.02], [position, position], color=GREY, linewidth=1.0, zorder=5)
            side, align = (1, "left") if place == last else (-1, "right")
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            axes.text(place + 0.04 * side, position, label, ha=align, va="center", fontsize=8, bbox=box, zorder=6)


def _parallel_legend(axes: Axes, ranked: Sequence[Ranked], lost: bool) -> None:
    if ranked:
        axes.plot([], [], color=ORANGE, linewidth=3.0, label=f"best: trial {ranked[0].trial.number}")
    if len(ranked) > 1:
        axes.plot([], [], color=colormaps["viridis_r"](0.95), linewidth=1.8, label="the better, the darker")
    if lost:
        axes.plot([], [], color=PINK, linewidth=0.8, linestyle="--", label="without a value")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False, fontsize=9)


def _key_ticks(axes: Axes, key: KeyAxis) -> None:
    positions, labels = zip(*key.ticks, strict=True) if key.ticks else ((), ())
    turned = sum(map(len, labels)) > 26
    axes.set_xticks(positions, labels, fontsize=8, rotation=30 if turned else 0, ha="right" if turned else "center")
    axes.set_xlim((OUTSIDE if key.unset else 0.0) - 0.07, 1.07)
    axes.set_xlabel(key.name)


def _key_points(
    axes: Axes, key: KeyAxis, ranked: Sequence[Ranked], lost: Sequence[Trial], plan: Plan, colours: Normalize
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
            axes.errorbar(*place, yerr=one.std, color=GREY, linewidth=1.0, capsize=2, zorder=2)
        colour = map_of(colours(one.trial.kimg))
        axes.plot(*place, "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.5, zorder=3)
        if rank == 0:
            axes.plot(*place, "*", color=ORANGE, markersize=14, markeredgecolor="white", zorder=4, clip_on=False)
    worst = 0.02 if plan.higher_is_better else 0.98
    for trial in lost:
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
