"""`distgan export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distgan.cli.options import CheckpointName, TrustCode
from distgan.text import printable

if TYPE_CHECKING:
    from distgan.inference.export import ExportFormat


def export(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="Folder or URL of a run or checkpoint.")],
    out: Annotated[str, typer.Option(metavar="FOLDER|URL", help="A new folder.")] = "exported",
    format: Annotated[  # noqa: A002 - the name of the option
        str, typer.Option(metavar="FORMATS", help="safetensors, onnx, torch-export, or several: onnx,safetensors.")
    ] = "safetensors",
    checkpoint: CheckpointName = None,
    trust_code: TrustCode = False,
) -> None:
    """Write a run's generator for use elsewhere: weights or a program, `config.json` and a model card.

    `distgan.load_generator` reads safetensors; ONNX and torch-export run without distgan. No file is a pickle.

    Example: `distgan export s3://runs/first --format safetensors,onnx --out first`
    """
    from distgan.inference.export import export_generator
    from distgan.tracking.formatting import number

    found = export_generator(source, out, parse_formats(format), checkpoint, trust_code=trust_code)
    measured = "".join(f", {name} {number(value)}" for name, value in found.config.metrics.items())
    print(printable(f"{found.url}: {', '.join(found.files)} of {found.config.checkpoint}{measured}"))
    for kind, difference in found.difference.items():
        print(f"{kind}: its images are those of the network, to {difference:.1g}")


def parse_formats(text: str) -> list[ExportFormat]:
    """Formats joined by commas. Raises BadParameter for an unknown one."""
    from distgan.inference.export import FORMATS

    formats = [name.strip() for name in text.split(",")]
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r:.40}: allowed: {', '.join(FORMATS)}", param_hint="--format")
    return [name for name in FORMATS if name in formats]
