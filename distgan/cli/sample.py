"""`distgan sample`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from distgan.cli.options import CheckpointName, TrustCode
from distgan.text import printable
from distgan.tracking.progress_bars import progress_bar

if TYPE_CHECKING:
    from distgan.inference.latents import Interpolation


class Interpolate(StrEnum):
    linear = "linear"
    spherical = "spherical"


def sample(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT",
            help="Folder or URL of a run, a checkpoint or an exported generator; hf://USER/NAME.",
        ),
    ],
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000_000,
            help="Number of samples, by default 64; of rows with --interpolate, by default 8; of images side by side "
            "in an animation, by default 16. With --latents as many as it has.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the latents.")] = 0,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE|FOLDER/",
            help="x.png: one grid. x.gif, x.webp: an animation. x/: a PNG for each. x.npy, x.npz: a uint8 array "
            "(N, H, W, C), in x.npz as arr_0 with the labels as arr_1.",
        ),
    ] = "grid.png",
    webdataset: Annotated[
        bool,
        typer.Option(
            "--webdataset",
            help="--out is a folder or URL for shards with labels and an index: data for `train` and "
            "`evaluate --data`.",
        ),
    ] = False,
    checkpoint: CheckpointName = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|INDEX|all",
            help="For a conditional generator: the label of all samples, or a column of the same latents for each.",
        ),
    ] = None,
    interpolate: Annotated[
        Interpolate | None,
        typer.Option(
            help="Make each sample a row of images on the way from it to another. Spherical keeps the norms of "
            "latents, and is the way of animations by default."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=1000,
            help="Images in a row of --interpolate; frames of an animation from one latent to the next. By default 10.",
        ),
    ] = None,
    truncation: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="PSI", help="Multiply latents by PSI: less variety, often paler images."),
    ] = 1.0,
    latents: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Latents in the place of drawn ones: .npy or .npz, float (N, latent_dim)."),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Draw samples from a run's best checkpoint, or another one, on the CPU.

    Sample i is the same for every --count and file format. Row i of --interpolate goes from sample i to sample
    COUNT + i. The images of an animation go around through four latents; its first frame is the grid.

    Example: `distgan sample s3://runs/first --count 50000 --out samples.npz`

    Example: `distgan sample runs/first --count 9 --out nine.webp`
    """
    from distgan.inference.sample_files import write_samples
    from distgan.inference.sampling import SampleOptions

    way: Interpolation | None = None if interpolate is None else interpolate.value
    options = SampleOptions(count, seed, label, truncation, interpolate=way, steps=steps)
    with progress_bar() as progress:
        task = progress.add_task("sampling", total=None)
        url, number = write_samples(
            source, out, options, latents=latents, webdataset=webdataset, which=checkpoint, trust_code=trust_code,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            log=lambda text: print(f"distgan: warning: {printable(text)}", file=sys.stderr),
        )  # fmt: skip
    of_label = "" if label is None else f", label {label}"
    drawn = f", seed {seed}" if latents is None else f", latents of {latents}"
    print(printable(f"{out}: {number} samples of {url}{drawn}{of_label}"))
