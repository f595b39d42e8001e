"""`distgan data stats`: statistics of a data set's images, computed before the first run needs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distgan.config.plugins import custom_names, custom_sources
from distgan.config.schema import DataConfig, EvaluationConfig, Resize
from distgan.data.dataset import Dataset
from distgan.data.shard_checks import open_index
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import configured_extractor
from distgan.evaluation.extractors.weights import located_weights
from distgan.evaluation.image_source import CountingExtractor, OnProgress
from distgan.evaluation.reference import DatasetReference
from distgan.evaluation.reference_files import RealStatistics
from distgan.storage.local_files import is_special, replacing
from distgan.storage.storage import Storage, translate_errors
from distgan.text import plural
from distgan.tracking import formatting
from distgan.training.process import choose_threads, prepare_process


@dataclass(frozen=True)
class StatisticsSpec:
    """Statistics of `images` images of a data set, as (channels, height, width) = `shape`."""

    evaluation: EvaluationConfig
    data: DataConfig
    shape: tuple[int, int, int]
    images: int

    @property
    def custom_sources(self) -> list[str]:
        """Files and folders of the user's own modules, for the workers to import."""
        return custom_sources(custom_names({"evaluation": self.evaluation.model_dump()}).values())


@dataclass(frozen=True)
class StoredStatistics:
    """Statistics and the URL of their file; None where none could be written."""

    real: RealStatistics
    url: str | None


def plan_statistics(
    url: str,
    *,
    size: int | None = None,
    resize: Resize | None = None,
    extractor: str | None = None,
    real_samples: int | None = None,
    samples: int | None = None,
) -> StatisticsSpec:
    """Plans statistics of images of `size` pixels a side, by default the data's own; others are resized (bilinear).

    The floor is that of `samples` images, by default the default of a run's evaluations.

    Raises UserError for data that are not there, and for data of several image sizes without `size`.
    """
    storage = Storage.open(url)
    header = open_index(storage).header
    size = size or header.image_size
    if size is None:
        raise UserError(f"{url}: its images have several sizes; choose one with --size")
    fitting: Resize = resize or ("none" if size == header.image_size else "bilinear")
    if fitting == "none" and size != header.image_size:
        raise UserError(f"--resize none: the images at {url} do not have {size} pixels; name a filter, or leave it out")
    evaluation = EvaluationConfig(real_samples=real_samples)
    if extractor is not None:
        evaluation = evaluation.model_copy(update={"extractor": extractor})
    if samples is not None:
        evaluation = evaluation.model_copy(update={"samples": samples})
    return StatisticsSpec(
        evaluation=located_weights(evaluation),
        data=DataConfig(url=storage.url, resize=fitting),
        shape=(header.channels, size, size),
        images=min(header.samples, real_samples or header.samples),
    )


def compute_statistics(
    spec: StatisticsSpec, distributed: Distributed, on_progress: OnProgress | None = None
) -> StoredStatistics:
    """Computes and stores the statistics, or reads stored ones. Collective; the same on each rank.

    A run with the same data, size, resize, extractor and number of real images finds them. Sets the number of threads
    of this process. Raises UserError for what cannot be read.
    """
    prepare_process(distributed.broadcast(choose_threads(None, distributed, None)), distributed.device)
    extractor = CountingExtractor(configured_extractor(spec.evaluation, distributed), on_progress)
    dataset = Dataset.open(spec.data, spec.shape)
    images = DatasetReference(spec.evaluation, spec.data, distributed, dataset, extractor)
    real = images.statistics()
    return StoredStatistics(real, distributed.broadcast(images.stored_at))


_NOT_STORED = "neither the data's folder nor this machine's cache folder can be written; --out FILE.npz writes a copy"


def statistics_lines(spec: StatisticsSpec, stored: StoredStatistics, copy: str | None) -> list[str]:
    """Lines with the data, the URL of the file, and the floor."""
    real, (channels, size, _) = stored.real, spec.shape
    resized = "" if spec.data.resize == "none" else f", data.resize={spec.data.resize}"
    lines = [
        f"{spec.data.url}: statistics of {plural(real.statistics.count, 'image')}, {channels}x{size}x{size}{resized}",
        f"  extractor {real.extractor}, {len(real.statistics.mean):,} features",
        f"  stored at {stored.url}" if stored.url else f"  not stored: {_NOT_STORED}",
    ]
    if real.floor is not None:
        lines.insert(2, f"  floor {formatting.floor(real.floor, real.floor_images)}")
    return lines if copy is None else [*lines, f"  copied to {copy}"]


def check_out(out: str) -> None:
    """Raises UserError unless `out` names an .npz file on this machine."""
    with translate_errors(out):
        elsewhere = "://" in out or is_special(Path(out)) or Path(out).is_symlink()
    if elsewhere or not out.endswith(".npz"):
        raise UserError(f"--out {out}: give the name of an .npz file on this machine")


def write_statistics(stored: StoredStatistics, out: str) -> None:
    """Writes a copy in one step. Raises UserError where that fails."""
    with translate_errors(out), replacing(Path(out)) as partial:
        partial.write_bytes(stored.real.to_bytes())
