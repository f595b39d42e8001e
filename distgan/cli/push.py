"""`distgan push`."""

from __future__ import annotations

from typing import Annotated

import typer

from distgan.cli.export import parse_formats
from distgan.cli.options import CheckpointName, TrustCode
from distgan.text import printable


def push(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", help="Folder or URL of a run, a checkpoint or an exported generator."
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="The model on the hub; made if it does not exist.")],
    format: Annotated[  # noqa: A002 - the name of the option
        str | None,
        typer.Option(metavar="FORMATS", help="As of `distgan export`; by default safetensors."),
    ] = None,
    checkpoint: CheckpointName = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who may see a new model; by default as your account says."),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Upload a run's generator to the Hugging Face hub: what `distgan export` writes, or an exported folder as it is.

    `distgan.load_generator("hf://USER/NAME")` and `distgan sample hf://USER/NAME` read it. Log in with `hf auth login`
    or HF_TOKEN; needs `pip install 'distgan[hub]'`.

    Example: `distgan push s3://runs/first ada/bricks --private`
    """
    from distgan.inference.push import push_generator
    from distgan.tracking.formatting import number

    formats = None if format is None else parse_formats(format)
    done = push_generator(source, name, formats, checkpoint, private=private, trust_code=trust_code)
    measured = "".join(f", {name} {number(value)}" for name, value in done.config.metrics.items())
    print(printable(f"{done.page}: {', '.join(done.files)} of {done.config.checkpoint}{measured}"))
    if done.to_fill_in:
        print("the model card has gaps for the data set and the license: fill them in on that page")
