"""`distgan evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.evaluation.image_source import Stage
    from distgan.inference.evaluation import Findings
    from distgan.inference.evaluation_plan import EvaluationJob, EvaluationOptions


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder or URL of a run or checkpoint, a folder of images (PNG, JPEG, WebP), or an .npy or .npz file "
            "as `distgan sample` writes it.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(metavar="URL", help="Data set to compare with; by default the run's own.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Joined by commas: fid, fid_clean, fd_lite0 (the Fréchet distance, and by which extractor), frechet, "
            "kid, pr (precision and recall), dc (density and coverage), is. By default frechet.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=2, max=10_000_000, help="Images that are measured; by default the run's number, or all."),
    ] = None,
    workers: WorkerCount = 1,
    checkpoint: CheckpointName = None,
    extractor: Extractor = None,
    real_samples: RealSamples = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npz", help="Compare with this file's mu and sigma, of this or another tool, not with images."
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Of a conditional generator: also the distance of each class.")
    ] = False,
    nearest: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=0,
            max=4096,
            help="Also look for copies: the training images nearest to the first K samples.",
        ),
    ] = 0,
    picture: Annotated[
        str, typer.Option(metavar="FILE.png", help="With --nearest: samples beside their nearest training images.")
    ] = "nearest.png",
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Also write JSON; `-` prints that and nothing else.")
    ] = None,
    trust_code: TrustCode = False,
    trust_addresses: TrustAddresses = False,
    address: Address = None,
    no_ray: NoRay = False,
) -> None:
    """Measure a run's best checkpoint, or another one, or images from anywhere, against a data set.

    Measured as its run was, a checkpoint has the distance that the run printed. Statistics of the real images are kept
    beside the data, or in this machine's cache folder, and computed once.

    Examples: `distgan evaluate s3://runs/first --metrics fd_lite0,kid,pr --samples 10000 --workers 4`,
    `distgan evaluate samples.npz --data s3://bricks/32`
    """
    from distgan.inference.evaluation_plan import EvaluationOptions

    options = EvaluationOptions(
        data=data, metrics=metrics, samples=samples, checkpoint=checkpoint, extractor=extractor,
        real_samples=real_samples, statistics=statistics, per_class=per_class,
        nearest=nearest, trust_code=trust_code, trust_addresses=trust_addresses,
    )  # fmt: skip
    _evaluate(source, options, json, picture, workers, address, no_ray=no_ray)


def _evaluate(
    source: str,
    options: EvaluationOptions,
    json: str | None,
    picture: str,
    workers: int,
    address: str | None,
    *,
    no_ray: bool,
) -> None:
    from distgan.cli.measuring import measuring_bars
    from distgan.inference.evaluation import evaluate as evaluate_job
    from distgan.inference.evaluation_plan import plan_evaluation
    from distgan.inference.evaluation_report import check_json_path
    from distgan.inference.memorization_report import check_picture_path, draw_nearest
    from distgan.launch.evaluate import run_task
    from distgan.launch.local import Workers

    if json not in {None, "-"}:
        check_json_path(str(json))
    if options.nearest:
        check_picture_path(picture)
    job = plan_evaluation(source, options)
    places = Workers(workers, address, no_ray, job.device, job.own_sources)
    totals: dict[Stage, int] = {"real images": job.real_images, "images": job.evaluation.samples}
    if job.nearest:
        totals["training images"] = job.training_images
    with measuring_bars(totals) as (told, say):
        found = run_task("evaluate", evaluate_job, job, places, told, say)
    if found is None:
        return
    if found.nearest is not None:
        draw_nearest(found.nearest, Path(picture))
    _print(job, found, json)


def _print(job: EvaluationJob, found: Findings, json: str | None) -> None:
    from distgan.inference.evaluation_report import scores_document, scores_table, write_document
    from distgan.tracking.jsonl import to_json

    document = scores_document(job, found)
    if json == "-":
        print(to_json(document, indent=1))
        return
    Terminal(soft_wrap=True).print(scores_table(job, found))
    if json is not None:
        write_document(document, json)
