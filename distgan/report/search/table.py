"""The trials of a search that goes on, as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from distgan.report import words
from distgan.report.search import words as search_words
from distgan.report.search.layout import Column, Row, TrialRows
from distgan.search.plan import Plan
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord
from distgan.search.trials import Trial

_NAMES: dict[str, str] = {"begun": "running", "budget": "done"}
_FIRST = ("running", "waiting", "done", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class Progress:
    """What is heard of a running trial between its evaluations.

    Attributes:
        kimg: real images that its critic has consumed, in thousands.
    """

    kimg: float
    images_per_second: float


def trials_table(record: SearchRecord, progress: Mapping[int, Progress]) -> RenderableType:
    """A row a trial: its values, how far it came, its best and latest value, what it does or how it ended.

    On a terminal that is too narrow the values share a column; on one that is too low for all trials those that run
    and the best ones are shown, and below them how many are not.

    Args:
        progress: of running trials, by number.
    """
    return _Trials(record, dict(progress))


class _Trials:
    """What the table shows depends on the terminal."""

    def __init__(self, record: SearchRecord, progress: dict[int, Progress]) -> None:
        self._record, self._progress = record, progress
        self._names = search_words.searched(record.plan)
        ranked = leaderboard(record.plan, record.trials)
        self._winner = ranked[0] if ranked else None
        self._by_worth = _by_worth(record.plan, record.trials)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, count = options.max_width, len(self._record.trials)
        if not console.is_terminal:
            yield self._picture(width, count)
            return
        height = options.size.height - 1
        count = min(count, height)
        lines = self._lines(console, options, count)
        while len(lines) > height and count > 1:
            count = max(1, count - math.ceil((len(lines) - height) * count / len(lines)))
            lines = self._lines(console, options, count)
        for line in lines:
            yield from line
            yield Segment.line()

    def _lines(self, console: Console, options: ConsoleOptions, count: int) -> list[list[Segment]]:
        return console.render_lines(self._picture(options.max_width, count), options.update(height=None), pad=False)

    def _picture(self, width: int, count: int) -> RenderableType:
        shown = sorted(self._by_worth[:count], key=lambda trial: trial.number)
        parts: list[RenderableType] = [self._header()]
        if shown:
            parts.append(self._table(shown, width))
        hidden = self._by_worth[count:]
        if hidden:
            parts.append(Text(f"{words.plural(len(hidden), 'trial')} not shown: {_counted(hidden)}", "dim"))
        return Group(*parts)

    def _header(self) -> Text:
        plan, trials = self._record.plan, self._record.trials
        text = Text.assemble((self._record.name, "bold"), f"  {_counted(trials) or 'no trial yet'}")
        to_come = self._record.limits.trials - sum(trial.repeats is None for trial in trials)
        if to_come > 0 and not plan.is_population and self._record.ended is None:
            text.append(f", {to_come:,} to come")
        text.append(f"  {plan.metric}, {search_words.direction(plan)}", "dim")
        if self._winner is not None:
            text.append(f"  best {words.number(self._winner.value)}: trial {self._winner.trial.number}", "bold green")
        return text

    def _table(self, trials: Sequence[Trial], width: int) -> RenderableType:
        budget = f"kimg of {words.kimg_count(self._record.plan.kimg)}"
        left = [Column("trial"), *([Column("generation")] if self._record.plan.is_population else [])]
        right = [Column(budget), Column("best"), Column("latest", spare=True), Column("state", right=False)]
        rows = [self._row(trial, budget) for trial in trials]
        return TrialRows(left, self._names, right, rows).table(width)

    def _row(self, trial: Trial, budget: str) -> Row:
        running = self._progress.get(trial.number) if trial.state == "begun" else None
        kimg = trial.kimg if running is None else max(trial.kimg, running.kimg)
        state = search_words.state_shown(trial, self._record)
        brief = state.partition(" at ")[0]
        if running is not None and self._record.ended is None:
            state += f", {words.number(running.images_per_second)}/s"
        best = search_words.best_shown(trial, self._record.plan.higher_is_better).removesuffix(" kimg")
        cells = {
            "trial": search_words.trial_shown(trial),
            "generation": str(trial.generation),
            budget: words.kimg_count(kimg) if kimg else "",
            "best": best,
            "latest": "" if trial.latest is None else words.number(trial.latest),
            "state": state,
        }
        short = {"best": best.partition(" ")[0], "state": brief}
        return Row(trial, cells, self._style(trial), short)

    def _style(self, trial: Trial) -> str:
        if self._winner is not None and trial.number == self._winner.trial.number:
            return "bold green"
        if search_words.is_ill(trial):
            return "red"
        return {"begun": "cyan", "waiting": "dim", "stopped": "dim"}.get(trial.state, "")


def _by_worth(plan: Plan, trials: Sequence[Trial]) -> list[Trial]:
    """Running trials, then the others from the best to those without a value."""
    sign = -1 if plan.higher_is_better else 1

    def order(trial: Trial) -> tuple[int, float, int]:
        best = trial.best(plan.higher_is_better)
        place = 0 if trial.state == "begun" else 1 if best is not None else 2
        return place, 0.0 if place == 0 or best is None else sign * best[1], trial.number

    return sorted(trials, key=order)


def _counted(trials: Sequence[Trial]) -> str:
    """`3 running, 12 stopped, 4 done`."""
    counts = Counter(_NAMES.get(trial.state, trial.state) for trial in trials)
    first = [name for name in _FIRST if name in counts]
    return ", ".join(f"{counts[name]:,} {name}" for name in [*first, *sorted(counts.keys() - {*_FIRST})])
