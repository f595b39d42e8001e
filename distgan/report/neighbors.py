"""The training images nearest to samples of a run, as rows of a report page."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distgan.distributed import Distributed, requested_threads
from distgan.inference.evaluation import nearest_images
from distgan.inference.evaluation_plan import EvaluationOptions, plan_evaluation
from distgan.inference.memorization import CLOSE, Nearest, Neighbors
from distgan.inference.report import name_and_unit, nearest_lines
from distgan.inference.sampling import CPU
from distgan.report.pictures import small_data_url
from distgan.report.run_data import RunData
from distgan.tracking.formatting import number
from distgan.tracking.grids import enlargement, image_grid
from distgan.tracking.progress_bars import feature_bars

# Samples that are compared, and of these the ones that are shown, each with so many training images by a measure.
_SAMPLES, _ROWS, _COLUMNS = 64, 8, 3

# A larger PNG file becomes WebP.
_MOST_PNG_BYTES = 8_000


@dataclass(frozen=True)
class Tile:
    """An image as a data URL, and its caption. `close`: as near as few real images are to another one."""

    source: str
    caption: str
    close: bool = False


@dataclass(frozen=True)
class NeighborRows:
    """The samples nearest to a training image, the nearest first.

    Attributes:
        lines: the distances of all samples beside those of real images, a sentence each.
        measures: names of the groups of neighbors.
        rows: a sample, and its neighbors by measure.
    """

    lines: list[str]
    measures: list[str]
    rows: list[tuple[Tile, list[list[Tile]]]]


def neighbor_rows(run: RunData, *, trust_code: bool = False, trust_addresses: bool = False) -> NeighborRows:
    """Reads all training images of a run and compares samples of its best checkpoint with them.

    Raises UserError where the run has no checkpoint, for data that are not there or too few, and for code and hosts
    that are not trusted.
    """
    options = EvaluationOptions(
        samples=_SAMPLES, nearest=_SAMPLES, trust_code=trust_code, trust_addresses=trust_addresses
    )
    spec = plan_evaluation(run.storage.url, options)
    with feature_bars({"training images": spec.training_images}) as (on_progress, _):
        return rows_of(nearest_images(spec, Distributed(0, 1, CPU, threads=requested_threads()), on_progress))


def rows_of(nearest: Nearest) -> NeighborRows:
    """The rows of a search that has been made."""
    rows = []
    for sample in nearest.nearest_first[:_ROWS]:
        groups = [_tiles(nearest, found, sample) for found in nearest.measures.values()]
        rows.append((Tile(_picture(nearest.fakes[sample]), f"sample {sample}"), groups))
    lines = [f"{line[0].upper()}{line[1:]}." for line in nearest_lines(nearest)]
    lines.append(f"Framed: as near as {CLOSE:.0%} of real images are to another one.")
    names = [": ".join(name_and_unit(measure, nearest.extractor)) for measure in nearest.measures]
    return NeighborRows(lines, names, rows)


def _tiles(nearest: Nearest, found: Neighbors, sample: int) -> list[Tile]:
    pairs = zip(found.fake[sample, :_COLUMNS].tolist(), found.fake_numbers[sample, :_COLUMNS].tolist(), strict=True)
    return [
        Tile(_picture(nearest.training_images[image]), f"{number(distance)}, no. {image}", distance <= found.limit)
        for distance, image in pairs
    ]


def _picture(image: Tensor) -> str:
    return small_data_url(image_grid(image[None], padding=0, scale=enlargement(image.shape[-1])), _MOST_PNG_BYTES)
