"""`distgan presets`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Ready-made configurations.", no_args_is_help=True)


@app.command("list")
def list_presets() -> None:
    """List the presets: networks, objective, image size, source."""
    from distgan.config.load import load_config, preset_names

    table = Table()
    for column in ("preset", "generator", "discriminator", "objective", "image", "what"):
        table.add_column(column, no_wrap=column == "preset")
    for name in preset_names():
        config = load_config(name)
        table.add_row(
            name,
            config.generator.network,
            config.discriminator.network,
            config.objective.name,
            f"{config.channels}x{config.image_size}x{config.image_size}",
            f"{config.description}\n[dim]{config.source}[/dim]",
        )
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A preset's name.")]) -> None:
    """Print a preset as it is written; `distgan train NAME --dry-run` prints all keys."""
    from distgan.config.load import preset_text

    print(preset_text(name), end="")
