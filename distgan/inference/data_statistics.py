"""Statistics of a data set's images, computed before a run asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distgan.config.plugins import custom_names, custom_sources
from distgan.config.schema import DataConfig, EvaluationConfig, Resize
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import configured_extractor
from distgan.evaluation.extractors.weights import located_weights
from distgan.evaluation.image_source import CountedFeatures, OnProgress, nobody
from distgan.evaluation.reference import DatasetReference
from distgan.evaluation.reference_files import RealStatistics
from distgan.storage.local_files import is_special, replacing
from distgan.storage.storage import Storage, translate_errors
from distgan.tracking import formatting
from distgan.training.process import choose_threads, prepare_process


@dataclass(frozen=True)
class StatisticsJob:
    """Statistics of `images` images of a data set, as (channels, height, width) = `shape`."""

    evaluation: EvaluationConfig
    data: DataConfig
    shape: tuple[int, int, int]
    images: int

    @property
    def own_sources(self) -> list[str]:
        """Files and folders of the user's own modules that workers must be able to import."""
        return custom_sources(custom_names({"evaluation": self.evaluation.model_dump()}).values())


@dataclass(frozen=True)
class KeptStatistics:
    """Statistics, and the URL of the file that keeps them; None where none could be written."""

    real: RealStatistics
    kept_at: str | None


def plan_statistics(
    url: str,
    *,
    size: int | None = None,
    resize: Resize | None = None,
    extractor: str | None = None,
    real_samples: int | None = None,
    samples: int | None = None,
) -> StatisticsJob:
    """The job for images of `size` pixels a side, by default their own; other ones are resized, by default bilinear.

    The floor is that under distances of `samples` images, by default as many as a run measures by default.

    Raises UserError for data that are not there, and for images of several sizes where none is given.
    """
    storage = Storage.open(url)
    header = Index.load(storage).header
    size = size or header.image_size
    if size is None:
        raise UserError(f"{url}: its images have several sizes; say with --size which one they are brought to")
    fitting: Resize = resize or ("none" if size == header.image_size else "bilinear")
    if fitting == "none" and size != header.image_size:
        raise UserError(f"--resize none: the images at {url} have not {size} pixels; name a filter, or leave it out")
    evaluation = EvaluationConfig(real_samples=real_samples)
    if extractor is not None:
        evaluation = evaluation.model_copy(update={"extractor": extractor})
    if samples is not None:
        evaluation = evaluation.model_copy(update={"samples": samples})
    return StatisticsJob(
        evaluation=located_weights(evaluation),
        data=DataConfig(url=storage.url, resize=fitting),
        shape=(header.channels, size, size),
        images=min(header.samples, real_samples or header.samples),
    )


def compute_statistics(job: StatisticsJob, distributed: Distributed, told: OnProgress = nobody) -> KeptStatistics:
    """Computes and keeps the statistics, or reads those that are kept; called on every rank, the same on each.

    A run with the same data, size, resize, extractor and number of real images finds them. Sets the threads of this
    process. Raises UserError for what cannot be read.
    """
    prepare_process(distributed.broadcast(choose_threads(None, distributed, None)), distributed.device)
    extractor = CountedFeatures(configured_extractor(job.evaluation, distributed), told)
    decoder = Dataset.open(job.data, job.shape)
    storage = Storage.open(str(job.data.url))
    images = DatasetReference(job.evaluation, job.data, distributed, storage, decoder, extractor)
    real = images.statistics()
    return KeptStatistics(real, distributed.broadcast(images.kept_at))


_NOWHERE = "neither the data's folder nor this machine's cache folder can be written; --out FILE.npz keeps a copy"


def statistics_lines(job: StatisticsJob, found: KeptStatistics, copy: str | None) -> list[str]:
    """What they are of, where they are kept, and the floor."""
    real, (channels, size, _) = found.real, job.shape
    resized = "" if job.data.resize == "none" else f", data.resize={job.data.resize}"
    lines = [
        f"{job.data.url}: statistics of {real.statistics.count:,} images, {channels}x{size}x{size}{resized}",
        f"  extractor {real.extractor}, {len(real.statistics.mean):,} features",
        f"  kept at {found.kept_at}" if found.kept_at else f"  not kept: {_NOWHERE}",
    ]
    if real.floor is not None:
        lines.insert(2, f"  floor {formatting.floor(real.floor, real.floor_images)}")
    return lines if copy is None else [*lines, f"  copied to {copy}"]


def check_out(out: str) -> None:
    """Raises UserError for what is no name of an .npz file on this machine."""
    with translate_errors(out):
        elsewhere = "://" in out or is_special(Path(out)) or Path(out).is_symlink()
    if elsewhere or not out.endswith(".npz"):
        raise UserError(f"--out {out}: give the name of an .npz file on this machine")


def write_statistics(found: KeptStatistics, out: str) -> None:
    """Writes a copy, which appears whole. Raises UserError where it cannot."""
    with translate_errors(out), replacing(Path(out)) as partial:
        partial.write_bytes(found.real.to_bytes())
