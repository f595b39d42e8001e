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
from distgan.config.plugins import EXTRACTORS, METRICS
from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.evaluation.image_source import Stage
    from distgan.inference.evaluation import EvaluationReport
    from distgan.inference.evaluation_plan import EvaluationOptions, EvaluationSpec


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
            help=f"Joined by commas: {', '.join(METRICS)}; kid, is, pr (precision and recall), dc (density and "
            f"coverage); {', '.join(EXTRACTORS)} (the Fréchet distance on these features); module:Class of your own. "
            "By default frechet.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=2, max=10_000_000, help="Number of images; by default the run's, or all."),
    ] = None,
    workers: WorkerCount = 1,
    checkpoint: CheckpointName = None,
    extractor: Extractor = None,
    real_samples: RealSamples = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.npz",
            help="Compare with mu and sigma in this file, from this or another tool.",
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also the distance of each class of a conditional generator.")
    ] = False,
    nearest: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=0,
            max=4096,
            help="Also find the training images nearest to the first K samples, to detect copies.",
        ),
    ] = 0,
    picture: Annotated[
        str,
        typer.Option(metavar="FILE.png", help="With --nearest: samples beside their nearest training images."),
    ] = "nearest.png",
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Also write JSON; `-` prints JSON only.")
    ] = None,
    trust_code: TrustCode = False,
    trust_addresses: TrustAddresses = False,
    address: Address = None,
    no_ray: NoRay = False,
) -> None:
    """Compare a run's best checkpoint, another checkpoint or images of any origin with a data set.

    With the run's own settings a checkpoint has the distance that the run printed. Statistics of the real images are
    computed once and stored beside the data, or in this machine's cache folder.

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
    from distgan.cli.measuring import feature_bars
    from distgan.inference.evaluation import evaluate as evaluate_spec
    from distgan.inference.evaluation_plan import plan_evaluation
    from distgan.inference.nearest_picture import check_picture_path, draw_nearest
    from distgan.inference.report import check_json_path
    from distgan.launch.evaluate import measure
    from distgan.launch.local import Workers

    if json not in {None, "-"}:
        check_json_path(str(json))
    if options.nearest:
        check_picture_path(picture)
    spec = plan_evaluation(source, options)
    places = Workers(workers, address, no_ray, spec.device, spec.own_sources)
    totals: dict[Stage, int] = {"real images": spec.real_images, "images": spec.evaluation.samples}
    if spec.nearest:
        totals["training images"] = spec.training_images
    with feature_bars(totals) as (on_progress, log):
        report = measure("evaluate", evaluate_spec, spec, places, on_progress, log)
    if report is None:
        return
    if report.nearest is not None:
        draw_nearest(report.nearest, Path(picture))
    _print(spec, report, json)


def _print(spec: EvaluationSpec, report: EvaluationReport, json: str | None) -> None:
    from distgan.inference.report import evaluation_document, evaluation_table, write_document
    from distgan.tracking.jsonl import to_json

    document = evaluation_document(spec, report)
    if json == "-":
        print(to_json(document, indent=1))
        return
    Terminal(soft_wrap=True).print(evaluation_table(spec, report))
    if json is not None:
        write_document(document, json)
