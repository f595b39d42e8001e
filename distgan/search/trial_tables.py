"""Tables of trials that fit into a terminal of any width."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from distgan.search import trial_text
from distgan.search.plan import SearchPlan
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord, Trial
from distgan.text import plural
from distgan.tracking import formatting

# Of a column of all values; a narrower one is left out.
_NARROWEST = 20


@dataclass(frozen=True)
class Column:
    """A column that is not a key's. Where a table is too wide, `spare` columns go first."""

    title: str
    right: bool = True
    spare: bool = False


@dataclass(frozen=True)
class Row:
    """A row: a trial, the texts of its columns by title, and its style.

    Attributes:
        short: texts in place of those of `cells` where there is little room.
    """

    trial: Trial
    cells: Mapping[str, str]
    style: str = ""
    short: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Layout:
    """How a table is laid out.

    Attributes:
        heading: letters of a line of a heading; None for headings in one line.
        brief: whether texts are short.
        spare: whether there are spare columns.
        gap: between columns.
        values: whether each key has a column, or all values are in one, or in none.
    """

    heading: int | None = None
    brief: bool = False
    spare: bool = True
    gap: int = 2
    values: Literal["columns", "one", "none"] = "columns"


_LAYOUTS = (
    _Layout(),
    _Layout(heading=10),
    _Layout(heading=10, brief=True),
    _Layout(heading=10, brief=True, spare=False),
    _Layout(heading=8, brief=True, spare=False, gap=1),
)

_ONE = _Layout(heading=8, brief=True, spare=False, values="one")


@dataclass(frozen=True)
class _Shown:
    """A column as it is laid out: its heading and its texts."""

    heading: str
    texts: list[str]
    right: bool
    folds: bool = False

    @property
    def width(self) -> int:
        return max(cell_len(line) for text in [self.heading, *self.texts] for line in text.split("\n"))


@dataclass(frozen=True)
class TrialRows:
    """Columns, those of the searched keys between those on the left and those on the right, and rows.

    Attributes:
        names: of the searched keys, with their short names.
    """

    left: Sequence[Column]
    names: Mapping[str, str]
    right: Sequence[Column]
    rows: Sequence[Row]

    def table(self, width: int) -> Table:
        """A table of at most this width: a column for each key, or, where that is too wide, one folded column for all.

        Where there is no room for that either it has none.
        """
        for layout in _LAYOUTS:
            shown = self._shown(layout)
            if _width(shown, layout) <= width:
                return self._build(shown, layout)
        none = replace(_ONE, values="none")
        shown = self._shown(none)
        if width - _width(shown, none) >= _NARROWEST:
            shown = self._shown(_ONE)
        return self._build(shown, _ONE)

    def _shown(self, layout: _Layout) -> list[_Shown]:
        left, right = (
            [self._plain_column(one, layout) for one in side if layout.spare or not one.spare]
            for side in (self.left, self.right)
        )
        return [*left, *self._values(layout), *right]

    def _values(self, layout: _Layout) -> list[_Shown]:
        if layout.values == "none":
            return []
        if layout.values == "one":
            texts = [trial_text.values_shown(row.trial, self.names) for row in self.rows]
            return [_Shown("values", texts, right=False, folds=True)]
        return [
            _Shown(
                _folded(name, layout.heading), [trial_text.key_shown(row.trial, key) for row in self.rows], right=True
            )
            for key, name in self.names.items()
        ]

    def _plain_column(self, column: Column, layout: _Layout) -> _Shown:
        title = column.title
        texts = [row.short.get(title, row.cells[title]) if layout.brief else row.cells[title] for row in self.rows]
        return _Shown(_folded(title, layout.heading), texts, column.right)

    def _build(self, columns: Sequence[_Shown], layout: _Layout) -> Table:
        padding = (0, layout.gap - 1, 0, 0)
        table = Table(box=box.SIMPLE_HEAD, padding=padding, pad_edge=False, show_edge=False, header_style="bold")
        for one in columns:
            table.add_column(
                Text(one.heading),
                justify="right" if one.right else "left",
                no_wrap=not one.folds,
                overflow="fold",
                min_width=None if one.folds else one.width,
            )
        for place, row in enumerate(self.rows):
            table.add_row(*(Text(one.texts[place]) for one in columns), style=row.style)
        return table


def _width(columns: Sequence[_Shown], layout: _Layout) -> int:
    return sum(one.width for one in columns) + layout.gap * (len(columns) - 1)


def _folded(name: str, width: int | None) -> str:
    """A heading in lines of at most this many letters, broken after dots, underscores and spaces if possible."""
    if width is None:
        return name
    lines = [""]
    for word in re.findall(r"[^._ ]*[._ ]?", name):
        for piece in (word[start : start + width] for start in range(0, len(word), width)):
            if len((lines[-1] + piece).rstrip()) <= width:
                lines[-1] += piece
            else:
                lines.append(piece)
    return "\n".join(line.rstrip() for line in lines)


_NAMES: dict[str, str] = {"begun": "running", "budget": "done"}

_FIRST = ("running", "waiting", "done", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class TrialProgress:
    """The progress of a running trial between evaluations.

    Attributes:
        kimg: real images that its discriminator has consumed, in thousands.
    """

    kimg: float
    images_per_second: float


def trials_table(record: SearchRecord, progress: Mapping[int, TrialProgress]) -> RenderableType:
    """A row for each trial: its values, kimg, best and latest value, and state.

    On a narrow terminal the values share a column. On a low one the running and the best trials are shown, and below
    them the number of the others.

    Args:
        progress: of running trials, by number.
    """
    return _Trials(record, dict(progress))


class _Trials:
    """A table that fits the terminal's width."""

    def __init__(self, record: SearchRecord, progress: dict[int, TrialProgress]) -> None:
        self._record, self._progress = record, progress
        self._names = trial_text.searched(record.plan)
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
            parts.append(Text(f"{plural(len(hidden), 'trial')} not shown: {_counted(hidden)}", "dim"))
        return Group(*parts)

    def _header(self) -> Text:
        plan, trials = self._record.plan, self._record.trials
        text = Text.assemble((self._record.name, "bold"), f"  {_counted(trials) or 'no trial yet'}")
        to_come = self._record.limits.trials - sum(trial.repeats is None for trial in trials)
        if to_come > 0 and not plan.is_population and self._record.ended is None:
            text.append(f", {to_come:,} to come")
        text.append(f"  {plan.metric}, {trial_text.direction(plan)}", "dim")
        if self._winner is not None:
            text.append(
                f"  best {formatting.number(self._winner.value)}: trial {self._winner.trial.number}", "bold green"
            )
        return text

    def _table(self, trials: Sequence[Trial], width: int) -> RenderableType:
        budget = f"kimg of {formatting.kimg_count(self._record.plan.kimg)}"
        left = [Column("trial"), *([Column("generation")] if self._record.plan.is_population else [])]
        right = [Column(budget), Column("best"), Column("latest", spare=True), Column("state", right=False)]
        rows = [self._row(trial, budget) for trial in trials]
        return TrialRows(left, self._names, right, rows).table(width)

    def _row(self, trial: Trial, budget: str) -> Row:
        running = self._progress.get(trial.number) if trial.state == "begun" else None
        kimg = trial.kimg if running is None else max(trial.kimg, running.kimg)
        state = trial_text.state_shown(trial, self._record)
        brief = state.partition(" at ")[0]
        if running is not None and self._record.ended is None:
            state += f", {formatting.number(running.images_per_second)}/s"
        best = trial_text.best_shown(trial, self._record.plan.higher_is_better).removesuffix(" kimg")
        cells = {
            "trial": trial_text.trial_shown(trial),
            "generation": str(trial.generation),
            budget: formatting.kimg_count(kimg) if kimg else "",
            "best": best,
            "latest": "" if trial.latest is None else formatting.number(trial.latest),
            "state": state,
        }
        short = {"best": best.partition(" ")[0], "state": brief}
        return Row(trial, cells, self._style(trial), short)

    def _style(self, trial: Trial) -> str:
        if self._winner is not None and trial.number == self._winner.trial.number:
            return "bold green"
        if trial_text.is_ill(trial):
            return "red"
        return {"begun": "cyan", "waiting": "dim", "stopped": "dim"}.get(trial.state, "")


def _by_worth(plan: SearchPlan, trials: Sequence[Trial]) -> list[Trial]:
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
