"""`distgan keys` and `distgan presets`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.config.describe import Key


def keys(
    wanted: Annotated[
        str,
        typer.Argument(metavar="KEY", help="A section or key, as optimizer or generator.width, or part of one."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """List the configuration keys: allowed values, default without a preset, description.

    The column `of` names the networks, objectives or optimizers that have a key; an empty cell: the key always exists.
    Without a terminal each key is a line.

    Examples: `distgan keys`, `distgan keys objective`, `distgan keys lr`
    """
    from distgan.config.describe import list_keys

    found = list_keys(wanted)
    if as_json:
        print(json.dumps([asdict(key) for key in found], indent=1))
        return
    console = Terminal()
    if console.is_terminal:
        console.print(_table(found))
        return
    rows = [("key", "allowed", "default", "of", "description"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _table(found: list[Key]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("key", no_wrap=True)
    for title in ("allowed", "default", "of", "description"):
        table.add_column(title, overflow="fold")
    for key in found:
        table.add_row(*_row(key))
    return table


def _row(key: Key) -> tuple[str, str, str, str, str]:
    return key.key, key.allowed, key.default, " ".join(key.of), key.meaning


app = typer.Typer(help="List and show presets: ready-made configurations.", no_args_is_help=True)


@app.command("list")
def list_presets() -> None:
    """List the presets: networks, objective, image size, parameters and source."""
    import torch

    from distgan.config.load import load_config, preset_names
    from distgan.tracking.formatting import parameter_count
    from distgan.training.networks import build_networks

    table = Table(show_lines=True)
    table.add_column("preset", no_wrap=True)
    table.add_column("networks, objective", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("description")
    for name in preset_names():
        config = load_config(name)
        image = f"{config.channels}x{config.image_size}x{config.image_size}"
        networks = f"{config.generator.network} + {config.discriminator.network}"
        sizes = build_networks(config, torch.device("meta")).parameter_counts.values()
        what = Text.assemble(config.description, "\n", (config.source, "dim"))
        table.add_row(
            name, f"{networks}\n{config.objective.name}, {image}", "\n".join(map(parameter_count, sizes)), what
        )
    Terminal().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A preset's name.")]) -> None:
    """Print a preset's file, with its search space; `distgan train NAME --dry-run` prints all keys."""
    from distgan.config.load import preset_text

    print(preset_text(name), end="")
