"""Learning curves of the trials of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from distgan.search import trial_text
from distgan.search.key_figures import WIDE
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord, Trial
from distgan.text import plural
from distgan.tracking.plots import BLUE, GRAY, ORANGE, PINK, note, plain, scale, style


@dataclass(frozen=True)
class _Look:
    """How the trials of one kind are drawn, and what the legend calls them."""

    label: str
    color: str
    width: float
    end: str
    size: float


_WINNER = _Look("best", ORANGE, 3.0, "o", 6)

_ILL = _Look("failed or unhealthy", PINK, 1.0, "x", 8)

_STOPPED = _Look("stopped", "#aaaaaa", 0.8, "o", 3.5)

_RUNNING = _Look("not ended", BLUE, 1.0, "", 0)

_WHOLE = _Look("to the end", "#555555", 1.4, "o", 3.5)

_ORDER = (_WINNER, _ILL, _WHOLE, _RUNNING, _STOPPED)


def curves_figure(record: SearchRecord) -> Figure:
    """A line for each trial, with a cross at its end if it failed. A child starts where its parent ended."""
    plan, by_number = record.plan, {trial.number: trial for trial in record.trials}
    figure = Figure(figsize=(9, 5.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(record.name, fontsize=13, fontweight="bold")
    style(axes, f"{plan.metric} ({trial_text.direction(plan)})")
    axes.set_xlabel("kimg (thousands of real images)")
    drawn = [trial for trial in record.trials if trial.curve]
    if not drawn:
        note(axes, "no trial was evaluated")
        axes.set_xticks([])
        return figure
    winners = _line_of_winner(record, by_number)
    looks = {trial.number: _look(trial, winners) for trial in drawn}
    for trial in drawn:
        _draw(axes, _joined(trial, by_number), looks[trial.number])
    best = leaderboard(plan, record.trials)[0].best_run.best(plan.higher_is_better)
    assert best is not None, "a ranked trial has a value"
    axes.plot(*best, "*", color=ORANGE, markersize=15, markeredgecolor="white", zorder=11, clip_on=False)
    scale(axes, np.array([value for trial in drawn for _, value in trial.curve]), WIDE)
    axes.set_xlim(left=0, right=1.02 * max(trial.kimg for trial in drawn) or 1.0)
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    _legend(axes, record, list(looks.values()))
    return figure


def _draw(axes: Axes, points: Sequence[tuple[float, float]], look: _Look) -> None:
    kimg, values = zip(*points, strict=True)
    order = 10 - _ORDER.index(look)
    axes.plot(kimg, values, color=look.color, linewidth=look.width, zorder=order, solid_capstyle="round")
    marker = look.end or ("." if len(points) == 1 else "")
    axes.plot(
        kimg[-1], values[-1], marker, color=look.color, markersize=look.size or 5, markeredgewidth=1.8, zorder=order
    )


def _joined(trial: Trial, by_number: Mapping[int, Trial]) -> list[tuple[float, float]]:
    """Its curve, and before it the last evaluation of the trial whose state it took over."""
    parent = by_number.get(trial.parent) if trial.parent is not None else None
    before = [] if parent is None else [point for point in parent.curve if point[0] < trial.curve[0][0]]
    return [*before[-1:], *trial.curve]


def _line_of_winner(record: SearchRecord, by_number: Mapping[int, Trial]) -> set[int]:
    """The winner's best run and those whose state it took over."""
    ranked = leaderboard(record.plan, record.trials)
    trial = ranked[0].best_run if ranked else None
    found: set[int] = set()
    while trial is not None and trial.number not in found:
        found.add(trial.number)
        trial = by_number.get(trial.parent) if trial.parent is not None else None
    return found


def _look(trial: Trial, winners: set[int]) -> _Look:
    if trial.number in winners:
        return _WINNER
    if trial_text.is_ill(trial):
        return _ILL
    if trial.state == "stopped":
        return _STOPPED
    return _WHOLE if trial.ended else _RUNNING


def _legend(axes: Axes, record: SearchRecord, looks: Sequence[_Look]) -> None:
    """The kinds of trials and how many of each; trials without a curve as text."""
    ranked = leaderboard(record.plan, record.trials)
    for look in _ORDER:
        count = looks.count(look)
        if not count:
            continue
        label = f"{count} {look.label}"
        if look is _WINNER:
            run = ranked[0].best_run
            label = f"best: trial {run.number}, {trial_text.best_shown(run, record.plan.higher_is_better)}"
        axes.plot([], [], color=look.color, linewidth=look.width, marker=look.end, markersize=look.size, label=label)
    missing = sum(trial_text.is_ill(trial) and not trial.curve for trial in record.trials)
    if missing:
        axes.plot([], [], " ", label=f"{plural(missing, 'trial')} failed before an evaluation")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, borderaxespad=0.2, fontsize=9)
    axes.tick_params(colors=GRAY, labelcolor="black")
