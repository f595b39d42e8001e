"""`distgan sample`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from distgan.cli.options import CheckpointName, TrustCode
from distgan.text import printable
from distgan.tracking.progress_bars import progress_bar


def sample(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="Folder or URL of a run or checkpoint.")],
    count: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Number of samples; in a grid at most 65,536.")
    ] = 64,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the latents.")] = 0,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE|FOLDER/",
            help="x.png: one grid. x/: a PNG for each. x.npy, x.npz: a uint8 array (N, H, W, C), in x.npz as arr_0 "
            "with the labels as arr_1.",
        ),
    ] = "grid.png",
    checkpoint: CheckpointName = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|INDEX|all",
            help="For a conditional generator: the label of all samples, or a column of the same latents for each.",
        ),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Draw samples from a run's best checkpoint, or another one, on the CPU.

    Sample i is the same for every --count and file format.

    Example: `distgan sample s3://runs/first --count 50000 --out samples.npz`
    """
    from distgan.inference.sample_files import write_samples

    with progress_bar() as progress:
        task = progress.add_task("sampling", total=count)
        url, number = write_samples(
            source, out, count=count, seed=seed, label=label, which=checkpoint, trust_code=trust_code,
            on_progress=lambda done: progress.update(task, completed=done),
            log=lambda text: print(f"distgan: warning: {printable(text)}", file=sys.stderr),
        )  # fmt: skip
    of_label = "" if label is None else f", label {label}"
    print(printable(f"{out}: {number} samples of {url}, seed {seed}{of_label}"))
