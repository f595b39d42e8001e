"""`distgan presets`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from distgan.report.screen import Terminal

app = typer.Typer(help="Ready-made configurations.", no_args_is_help=True)


@app.command("list")
def list_presets() -> None:
    """List the presets: networks, objective, image size, parameters, and where they come from."""
    import torch

    from distgan.config.load import load_config, preset_names
    from distgan.report.words import parameter_count
    from distgan.training.networks import build_networks

    table = Table(show_lines=True)
    table.add_column("preset", no_wrap=True)
    table.add_column("networks, objective", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("what it is")
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
    """Print a preset as it is written; `distgan train NAME --dry-run` prints all keys."""
    from distgan.config.load import preset_text

    print(preset_text(name), end="")
