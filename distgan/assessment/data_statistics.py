"""Statistics of a data set's images, computed before a run asks for them."""

from __future__ import annotations

from dataclasses import dataclass

from distgan.config.components import own_names
from distgan.config.own_code import own_sources
from distgan.config.schema import DataConfig, EvaluationConfig, Resize
from distgan.data.decode import SampleDecoder
from distgan.data.index import Index
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.evaluation.evaluator import configured_extractor
from distgan.evaluation.progress import CountedFeatures, Told, nobody
from distgan.evaluation.real_images import RealImages
from distgan.evaluation.weights import located_weights
from distgan.metrics.statistics_file import RealStatistics
from distgan.training.process import choose_threads, prepare_process
from distgan.world import World


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
        return own_sources(own_names({"evaluation": self.evaluation.model_dump()}).values())


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


def compute_statistics(job: StatisticsJob, world: World, told: Told = nobody) -> KeptStatistics:
    """Computes and keeps the statistics, or reads those that are kept; called on every rank, the same on each.

    A run with the same data, size, resize, extractor and number of real images finds them. Sets the threads of this
    process. Raises UserError for what cannot be read.
    """
    prepare_process(world.agree(choose_threads(None, world, None)), world.device)
    extractor = CountedFeatures(configured_extractor(job.evaluation, world), told)
    decoder = SampleDecoder.open(job.data, job.shape)
    storage = Storage.open(str(job.data.url))
    images = RealImages(job.evaluation, job.data, world, storage, decoder, extractor)
    real = images.statistics()
    return KeptStatistics(real, world.agree(images.kept_at))
