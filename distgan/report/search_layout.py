"""Tables of trials, which fit into a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from distgan.report import search_words
from distgan.search.trials import Trial


@dataclass(frozen=True)
class Column:
    """One that is not a key's. Where a table is too wide, `spare` ones go first."""

    title: str
    right: bool = True
    spare: bool = False


@dataclass(frozen=True)
class Row:
    """A trial, the texts of its columns by title, and its style."""

    trial: Trial
    cells: Mapping[str, str]
    style: str = ""


@dataclass(frozen=True)
class TrialRows:
    """Columns, those of the searched keys between those on the left and those on the right, and rows.

    Attributes:
        names: of the searched keys, with their short names.
    """

    left: Sequence[Column]
    names: dict[str, str]
    right: Sequence[Column]
    rows: Sequence[Row]

    def table(self, console: Console, options: ConsoleOptions) -> Table:
        """With a column a key, or where that is too wide with all values in one, folded as far as it must be."""
        for table in self._layouts():
            if Measurement.get(console, options.update(width=10_000), table).maximum <= options.max_width:
                return table
        return table

    def _layouts(self) -> Iterator[Table]:
        yield self._build(columns=True, spare=True, narrow=False)
        yield self._build(columns=True, spare=True, narrow=True)
        yield self._build(columns=True, spare=False, narrow=True)
        yield self._build(columns=False, spare=False, narrow=True)

    def _build(self, *, columns: bool, spare: bool, narrow: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        left, right = ([one for one in side if spare or not one.spare] for side in (self.left, self.right))
        for one in left:
            table.add_column(one.title, justify="right" if one.right else "left", no_wrap=columns)
        if columns:
            for short in self.names.values():
                table.add_column(Text(short.replace(".", ".\n") if narrow else short), justify="right", no_wrap=True)
        else:
            table.add_column("values", ratio=1, min_width=12)
        for one in right:
            table.add_column(one.title, justify="right" if one.right else "left", no_wrap=columns)
        for row in self.rows:
            keys = [search_words.key_shown(row.trial, key) for key in self.names]
            values = keys if columns else [search_words.values_shown(row.trial, self.names)]
            cells = [
                *(row.cells[one.title] for one in left),
                *values,
                *(row.cells[one.title] for one in right),
            ]
            table.add_row(*map(Text, cells), style=row.style)
        return table
