"""A table that becomes lines where it is wider than the terminal, so that no number or name is cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text


class NarrowTable(Table):
    """A table whose columns with `no_wrap` never shrink, and whose others wrap between words.

    Where that needs more than the width, each row is a line instead: its first cell, then the others by their titles.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if sum(self._least(console, options)) + self._around() <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title is not None:
            yield self.title if isinstance(self.title, Text) else Text(str(self.title))
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            yield Text(self._line([str(cell) for cell in cells]))

    def _least(self, console: Console, options: ConsoleOptions) -> Iterator[int]:
        """The width that each column needs at least."""
        for column in self.columns:
            cells = [*column.cells, *([column.header] if self.show_header else [])]
            widths = [Measurement.get(console, options.update(max_width=10_000), cell) for cell in cells]
            yield max((each.maximum if column.no_wrap else each.minimum for each in widths), default=0)

    def _around(self) -> int:
        """The width of borders and padding."""
        _, right, _, left = self.padding
        columns = len(self.columns)
        return columns * (left + right) + (columns + 1 if self.box is not None else 0)

    def _line(self, cells: list[str]) -> str:
        titles = [_title(column) if self.show_header else "" for column in self.columns]
        parts = [f"{title} {cell}".strip() for title, cell in zip(titles[1:], cells[1:], strict=True) if cell.strip()]
        return f"{cells[0]}: {', '.join(parts)}".removesuffix(": ")


def _title(column: Column) -> str:
    return str(column.header)
