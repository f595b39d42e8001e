"""`distgan keys`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from distgan.config.keys import Key


def keys(
    wanted: Annotated[
        str,
        typer.Argument(metavar="[KEY]", help="A section or key, as optimizer or generator.width, or a part of it."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """List the configuration's keys: what may be written, the default without a preset, and what it is.

    `of` names the networks, objectives or optimisers that have a key; a key without is always there. Where the output
    is no terminal, a key is a line.

    Examples: `distgan keys`, `distgan keys objective`, `distgan keys lr`
    """
    from distgan.config.keys import list_keys

    found = list_keys(wanted)
    if as_json:
        print(json.dumps([asdict(key) for key in found], indent=1))
        return
    from distgan.report.screen import Terminal

    console = Terminal()
    if console.is_terminal:
        console.print(_table(found))
        return
    rows = [("key", "allowed", "default", "of", "what it is"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _table(found: list[Key]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    for title in ("allowed", "default", "of", "what it is"):
        table.add_column(title, overflow="fold")
    for key in found:
        table.add_row(*_row(key))
    return table


def _row(key: Key) -> tuple[str, str, str, str, str]:
    return key.key, key.allowed, key.default, " ".join(key.of), key.meaning
