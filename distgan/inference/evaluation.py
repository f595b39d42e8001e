"""Evaluates a checkpoint, a folder or an array of images against a data set, outside of training."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from distgan.config.schema import Config
from distgan.data.dataset import Dataset, check_bad_samples
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Comparison, Evaluator, Scores, configured_extractor
from distgan.evaluation.given_images import open_images
from distgan.evaluation.image_source import CHUNK, CountedFeatures, ImageSource, OnProgress, nobody
from distgan.evaluation.reference import DatasetReference, Reference
from distgan.evaluation.reference_files import StatisticsReference
from distgan.inference.evaluation_plan import EvaluationJob
from distgan.inference.memorization import Nearest, find_nearest
from distgan.inference.sampling import average_generator
from distgan.storage.storage import Storage
from distgan.training.checkpoints import Checkpoint
from distgan.training.fakes import GeneratedImages
from distgan.training.process import choose_threads, prepare_process
from distgan.training.starting_point import find_checkpoint


@dataclass(frozen=True)
class Finding:
    """One measure: as the configuration and as reports call it, its value, and its deviation where it has one.

    `seconds` are its own, without those of the features; what is computed together (precision, recall and their kin)
    has the same ones.
    """

    measure: str
    name: str
    value: float
    deviation: float | None
    seconds: float


@dataclass(frozen=True)
class ClassFinding:
    """The Fréchet distance between generated and real images of one class."""

    label: int
    name: str
    samples: int
    real_images: int
    distance: float


@dataclass(frozen=True)
class Findings:
    """What a job found.

    Attributes:
        extractor: its name; features: numbers that it makes of an image.
        real_images: how many it was compared with; 0 where nobody knows.
        floor: what `floor_images` of the real images measure, where it is known.
        small_classes: names of those that have too few real images to be measured.
        nearest: the training images nearest to the first samples, where they were asked for.
        seconds: of the real side, of the images' features, of the classes, of the nearest images, and in all.
    """

    extractor: str
    features: int
    samples: int
    real_images: int
    floor: float | None
    floor_images: int | None
    measures: list[Finding]
    classes: list[ClassFinding]
    small_classes: list[str]
    nearest: Nearest | None
    seconds: dict[str, float]
    workers: int
    device: str


# Real images of a class: the floor is of half of them, at least two.
_LEAST_OF_A_CLASS = 4

# Under which name the seconds of a measure are noted, where it is not its own.
_SECONDS = dict.fromkeys(("precision", "recall", "density", "coverage"), "manifold")


def score_checkpoint(config: Config, checkpoint: Checkpoint, distributed: Distributed) -> Scores:
    """Measures a checkpoint's average generator as its run does; called on every rank, and the same on each.

    `config` is the run's, where data and what is measured may be others; `evaluation.weights` must be in it where the
    extractor needs them (`with_weights`). With the run's own values, workers and threads (`process.prepare_process`)
    the scores are those of the run to the bit.

    Raises UserError for data that are missing or damaged, and for tensors of another network.
    """
    decoder = Dataset.open(config.data, config.image_shape)
    evaluator = Evaluator(config.evaluation, config.data, distributed, Storage.open(str(config.data.url)), decoder)
    generator = average_generator(config, checkpoint, distributed.device)
    return evaluator.evaluate(GeneratedImages(config, decoder.index.labels, distributed.device, generator))


def evaluate(job: EvaluationJob, distributed: Distributed, told: OnProgress = nobody) -> Findings:
    """Runs the job; called on every rank, and the same on each. Sets the threads of this process.

    Raises UserError where something cannot be read, and for images that cannot be measured.
    """
    return _Measurement(job, distributed, told).findings()


class _Measurement:
    """A job under way on one worker."""

    def __init__(self, job: EvaluationJob, distributed: Distributed, told: OnProgress) -> None:
        self._begin = time.perf_counter()
        self._job, self._world, config = job, distributed, job.config
        self._checkpoint = find_checkpoint(job.source) if config is not None else None
        manifest = self._checkpoint.manifest if self._checkpoint is not None else None
        threads = choose_threads(config.scale.threads if config is not None else None, distributed, manifest)
        prepare_process(distributed.broadcast(threads), distributed.device)
        self._extractor = CountedFeatures(configured_extractor(job.evaluation, distributed), told)
        self._decoder = Dataset.open(job.data, job.shape) if job.data.url is not None else None
        self._classes = self._decoder.index.header.classes if self._decoder is not None else []

    def findings(self) -> Findings:
        job, distributed = self._job, self._world
        images = open_images(job.source, job.evaluation.samples) if job.config is None else self._generated(job.config)
        sides = self._sides_of_classes() if job.per_class else {}
        comparison = Comparison(job.evaluation, distributed, self._extractor, self._real_side())
        real_until = time.perf_counter()
        self._extractor.stage = "images"
        scores = comparison.evaluate(images)
        images_until = time.perf_counter()
        classes = [self._class(label, side, len(sides)) for label, side in sides.items()]
        classes_until = time.perf_counter()
        nearest = self._nearest(images) if job.nearest else None
        end = time.perf_counter()
        seconds = {"real images": real_until - self._begin, "features": scores.seconds["features"]}
        if classes:
            seconds["classes"] = classes_until - images_until
        if nearest:
            seconds["nearest"] = end - classes_until
        return Findings(
            extractor=self._extractor.name,
            features=self._extractor.dimension,
            samples=job.evaluation.samples,
            real_images=comparison.real.statistics.count,
            floor=comparison.real.floor,
            floor_images=comparison.real.floor_images,
            measures=[_finding(measure, scores, comparison) for measure in job.measures],
            classes=classes,
            small_classes=[name for label, name in enumerate(self._classes) if label not in sides] if sides else [],
            nearest=nearest,
            seconds=seconds | {"total": end - self._begin},
            workers=distributed.size,
            device=distributed.device.type,
        )

    def _nearest(self, images: ImageSource) -> Nearest:
        assert self._decoder is not None
        self._extractor.stage = "training images"
        chunks = [images.chunk(number).cpu() for number in range(-(-self._job.nearest // CHUNK))]
        samples = torch.cat(chunks)[: self._job.nearest]
        nearest = find_nearest(self._world, self._decoder, self._extractor, samples)
        check_bad_samples(len(self._decoder.index) - nearest.searched, self._job.data)
        return nearest

    def _real_side(self) -> Reference:
        job = self._job
        if job.evaluation.statistics is not None:
            given, samples = job.evaluation.statistics, job.evaluation.samples
            return StatisticsReference(given, self._world, self._extractor, job.shape[1], samples)
        return self._real_images()

    def _real_images(self, label: int | None = None) -> DatasetReference:
        assert self._decoder is not None
        data = self._job.data
        storage = Storage.open(str(data.url))
        return DatasetReference(self._job.evaluation, data, self._world, storage, self._decoder, self._extractor, label)

    def _generated(self, config: Config, label: int | None = None) -> GeneratedImages:
        assert self._checkpoint is not None
        labels = self._decoder.index.labels if self._decoder is not None else np.empty(0, np.int64)
        generator = average_generator(config, self._checkpoint, self._world.device)
        return GeneratedImages(config, labels, self._world.device, generator, label)

    def _sides_of_classes(self) -> dict[int, DatasetReference]:
        """The real images of each class of which there are enough, by label.

        Raises UserError where there is no such class, and where `real_samples` leaves one too few.
        """
        assert self._decoder is not None
        labels = self._decoder.index.labels
        counts = np.bincount(labels[labels >= 0], minlength=len(self._classes))
        sides = {label: self._real_images(label) for label in np.flatnonzero(counts >= _LEAST_OF_A_CLASS).tolist()}
        if not sides:
            raise UserError(
                f"--per-class: {self._job.against} has no class of {_LEAST_OF_A_CLASS} or more images, and a distance "
                f"needs them; leave --per-class out"
            )
        for label, side in sides.items():
            name = self._classes[label]
            if side.count < _LEAST_OF_A_CLASS:
                raise UserError(
                    f"--per-class: {self._job.against} has {side.count} real images of the class {name!r:.80}, and a "
                    f"distance needs {_LEAST_OF_A_CLASS}; raise --real-samples, or leave --per-class out"
                )
        return sides

    def _class(self, label: int, side: DatasetReference, classes: int) -> ClassFinding:
        config = self._job.config
        assert config is not None
        samples = max(2, config.evaluation.samples // classes)
        evaluation = config.evaluation.model_copy(update={"samples": samples, "metrics": []})
        self._extractor.stage = "real images"
        comparison = Comparison(evaluation, self._world, self._extractor, side)
        self._extractor.stage = "images"
        images = self._generated(config.model_copy(update={"evaluation": evaluation}), label)
        distance = comparison.evaluate(images).distance
        return ClassFinding(label, self._classes[label], samples, comparison.real.statistics.count, distance)


def _finding(measure: str, scores: Scores, comparison: Comparison) -> Finding:
    value = scores.distance if measure == "frechet" else scores.more[measure]
    return Finding(
        measure=measure,
        name=comparison.name(measure),
        value=value,
        deviation=scores.more.get(f"{measure}_std"),
        seconds=scores.seconds[_SECONDS.get(measure, measure)],
    )
