"""Tables of trials, which fit into a terminal of any width."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from distgan.report.search import words as search_words
from distgan.search.trials import Trial

# Of a column of all values; a narrower one is left out.
_NARROWEST = 20


@dataclass(frozen=True)
class Column:
    """One that is not a key's. Where a table is too wide, `spare` ones go first."""

    title: str
    right: bool = True
    spare: bool = False


@dataclass(frozen=True)
class Row:
    """A trial, the texts of its columns by title, and its style.

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
        """At most so wide: with a column a key, or where that is too wide with all values in one, folded.

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
            [self._own(one, layout) for one in side if layout.spare or not one.spare]
            for side in (self.left, self.right)
        )
        return [*left, *self._values(layout), *right]

    def _values(self, layout: _Layout) -> list[_Shown]:
        if layout.values == "none":
            return []
        if layout.values == "one":
            texts = [search_words.values_shown(row.trial, self.names) for row in self.rows]
            return [_Shown("values", texts, right=False, folds=True)]
        return [
            _Shown(
                _folded(name, layout.heading), [search_words.key_shown(row.trial, key) for row in self.rows], right=True
            )
            for key, name in self.names.items()
        ]

    def _own(self, column: Column, layout: _Layout) -> _Shown:
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
    """A heading in lines of so many letters, broken after points, underscores and spaces where it can be."""
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
