"""`distgan evaluate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from distgan import api
from distgan.cli.options import (
    Address,
    CheckpointName,
    Extractor,
    NoRay,
    RealSamples,
    TrustAddresses,
    TrustCode,
    WorkerCount,
)
from distgan.config.plugins import EXTRACTORS, METRICS
from distgan.tracking.console import Terminal


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder or URL of a run or checkpoint, a folder of images (PNG, JPEG, WebP), or an .npy or .npz file "
            "of `distgan sample`.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(metavar="URL", help="Data set to compare with. By default the run's own.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help=f"Joined by commas: {', '.join(METRICS)}; kid, is, pr (precision and recall), dc (density and "
            f"coverage); {', '.join(EXTRACTORS)} (the Fréchet distance on these features); module:Class of your own. "
            "By default frechet.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=2, max=10_000_000, help="Number of images to measure. By default the run's, or all."),
    ] = None,
    workers: WorkerCount = 1,
    checkpoint: CheckpointName = None,
    extractor: Extractor = None,
    real_samples: RealSamples = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npz",
            help="Compare with mu and sigma of this file, from this or another tool, not with images.",
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also the distance of each class, for a conditional generator.")
    ] = False,
    nearest: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=0,
            max=4096,
            help="Look for copies: the training images nearest to the first K samples.",
        ),
    ] = 0,
    picture: Annotated[
        str,
        typer.Option(
            metavar="FILE.png", help="With --nearest: a picture of samples and their nearest training images."
        ),
    ] = "nearest.png",
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Also write JSON; `-` prints only JSON.")
    ] = None,
    trust_code: TrustCode = False,
    trust_addresses: TrustAddresses = False,
    address: Address = None,
    no_ray: NoRay = False,
) -> None:
    """Measure a run's best checkpoint, another one, or any images, against a data set.

    With the run's own settings a checkpoint has the distance that the run printed. Statistics of the real images are
    computed once and kept with the data, or in this machine's cache folder.

    Examples: `distgan evaluate s3://runs/first --metrics fd_lite0,kid,pr --samples 10000 --workers 4`,
    `distgan evaluate samples.npz --data s3://bricks/32`
    """
    from distgan.inference.nearest_picture import check_picture_path, draw_nearest
    from distgan.inference.report import check_json_path

    if json not in {None, "-"}:
        check_json_path(str(json))
    if nearest:
        check_picture_path(picture)
    found = api.evaluate(
        source, data=data, metrics=metrics, samples=samples, workers=workers, checkpoint=checkpoint,
        extractor=extractor, real_samples=real_samples, statistics=statistics, per_class=per_class, nearest=nearest,
        trust_code=trust_code, trust_addresses=trust_addresses, address=address, ray=False if no_ray else None,
    )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":  # of torchrun's processes one prints
        return
    if found.report.nearest is not None:
        draw_nearest(found.report.nearest, Path(picture))
    _print(found, json)


def _print(found: api.Evaluation, json: str | None) -> None:
    from distgan.inference.report import evaluation_table, write_document
    from distgan.tracking.jsonl import to_json

    document = found.as_dict()
    if json == "-":
        print(to_json(document, indent=1))
        return
    Terminal(soft_wrap=True).print(evaluation_table(found.spec, found.report))
    if json is not None:
        write_document(document, json)
