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
from distgan.evaluation.evaluator import Evaluator, Scores, build_evaluator, configured_extractor
from distgan.evaluation.given_images import open_images
from distgan.evaluation.image_source import CHUNK, CountingExtractor, ImageSource, OnProgress
from distgan.evaluation.metrics.registry import FRECHET, timed_as
from distgan.evaluation.reference import DatasetReference, Reference
from distgan.evaluation.reference_files import StatisticsReference
from distgan.inference.evaluation_plan import EvaluationSpec
from distgan.inference.memorization import Nearest, find_nearest
from distgan.inference.sampling import average_generator
from distgan.training.checkpoints import Checkpoint
from distgan.training.fakes import GeneratedImages
from distgan.training.process import choose_threads, prepare_process
from distgan.training.starting_point import find_checkpoint


@dataclass(frozen=True)
class MetricResult:
    """One metric.

    Attributes:
        metric: its name in the configuration; name: in reports.
        std: standard deviation over subsets, where the metric has one.
        seconds: without those of the features. Metrics computed together (`Metric.group`) have the same ones.
    """

    metric: str
    name: str
    value: float
    std: float | None
    seconds: float


@dataclass(frozen=True)
class ClassResult:
    """The Fréchet distance between generated and real images of one class."""

    label: int
    name: str
    samples: int
    real_images: int
    distance: float


@dataclass(frozen=True)
class EvaluationReport:
    """The results of an evaluation.

    Attributes:
        extractor: its name; features: length of a feature vector.
        real_images: how many are on the real side; 0 where that is not known.
        floor: the Fréchet distance of `floor_images` real images, where it is known.
        small_classes: names of classes with too few real images for a distance.
        nearest: the training images nearest to the first samples, where they were asked for.
        seconds: of the real images, the features, the classes, the nearest images, and in total.
    """

    extractor: str
    features: int
    samples: int
    real_images: int
    floor: float | None
    floor_images: int | None
    metrics: list[MetricResult]
    classes: list[ClassResult]
    small_classes: list[str]
    nearest: Nearest | None
    seconds: dict[str, float]
    workers: int
    device: str


# Fewest real images of a class: the floor is of half of them, at least two.
_MIN_CLASS_IMAGES = 4


def score_checkpoint(config: Config, checkpoint: Checkpoint, distributed: Distributed) -> Scores:
    """Evaluates a checkpoint's average generator as its run does. Collective; the same scores on each rank.

    `config` is the run's, perhaps with other data or metrics; `evaluation.weights` must be in it where the extractor
    needs them (`with_weights`). With the run's own values, workers and threads (`process.prepare_process`) the scores
    are those of the run to the bit.

    Raises UserError for data that are missing or damaged, and for tensors of another network.
    """
    dataset = Dataset.open(config.data, config.image_shape)
    evaluator = build_evaluator(config.evaluation, config.data, distributed, dataset)
    generator = average_generator(config, checkpoint, distributed.device)
    return evaluator.evaluate(GeneratedImages(config, dataset.index.labels, distributed.device, generator))


def evaluate(spec: EvaluationSpec, distributed: Distributed, on_progress: OnProgress | None = None) -> EvaluationReport:
    """Runs an evaluation. Collective; the same report on each rank. Sets the number of threads of this process.

    Raises UserError where something cannot be read, and for images that are not finite.
    """
    return _Evaluation(spec, distributed, on_progress).report()


def nearest_images(spec: EvaluationSpec, distributed: Distributed, on_progress: OnProgress | None = None) -> Nearest:
    """The training images nearest to the first `spec.nearest` samples, without metrics. As `evaluate` otherwise."""
    evaluation = _Evaluation(spec, distributed, on_progress)
    return evaluation.nearest(evaluation.images())


class _Evaluation:
    """An evaluation in progress on one worker."""

    def __init__(self, spec: EvaluationSpec, distributed: Distributed, on_progress: OnProgress | None) -> None:
        self._begin = time.perf_counter()
        self._spec, self._distributed, config = spec, distributed, spec.config
        self._checkpoint = find_checkpoint(spec.source) if config is not None else None
        manifest = self._checkpoint.manifest if self._checkpoint is not None else None
        threads = choose_threads(config.scale.threads if config is not None else None, distributed, manifest)
        precision = config.training.precision if config is not None else "float32"
        prepare_process(distributed.broadcast(threads), distributed.device, precision)
        self._extractor = CountingExtractor(configured_extractor(spec.evaluation, distributed), on_progress)
        self._dataset = Dataset.open(spec.data, spec.shape) if spec.data.url is not None else None
        self._classes = self._dataset.index.header.classes if self._dataset is not None else []

    def report(self) -> EvaluationReport:
        spec, distributed = self._spec, self._distributed
        images = self.images()
        references = self._class_references() if spec.per_class else {}
        evaluator = Evaluator(spec.evaluation, distributed, self._extractor, self._reference())
        real_until = time.perf_counter()
        self._extractor.stage = "images"
        scores = evaluator.evaluate(images)
        images_until = time.perf_counter()
        classes = [self._class_result(label, each, len(references)) for label, each in references.items()]
        classes_until = time.perf_counter()
        nearest = self.nearest(images) if spec.nearest else None
        end = time.perf_counter()
        seconds = {"real images": real_until - self._begin, "features": scores.seconds["features"]}
        if classes:
            seconds["classes"] = classes_until - images_until
        if nearest:
            seconds["nearest"] = end - classes_until
        return EvaluationReport(
            extractor=self._extractor.name,
            features=self._extractor.dimension,
            samples=spec.evaluation.samples,
            real_images=evaluator.real.statistics.count,
            floor=evaluator.real.floor,
            floor_images=evaluator.real.floor_images,
            metrics=[_metric_result(metric, scores, evaluator) for metric in spec.metrics],
            classes=classes,
            small_classes=[name for label, name in enumerate(self._classes) if references and label not in references],
            nearest=nearest,
            seconds=seconds | {"total": end - self._begin},
            workers=distributed.size,
            device=distributed.device.type,
        )

    def images(self) -> ImageSource:
        """The generated or given images."""
        if self._spec.config is None:
            return open_images(self._spec.source, self._spec.evaluation.samples)
        return self._generated(self._spec.config)

    def nearest(self, images: ImageSource) -> Nearest:
        assert self._dataset is not None
        self._extractor.stage = "training images"
        chunks = [images.chunk(number).cpu() for number in range(-(-self._spec.nearest // CHUNK))]
        samples = torch.cat(chunks)[: self._spec.nearest]
        nearest = find_nearest(self._distributed, self._dataset, self._extractor, samples)
        check_bad_samples(len(self._dataset.index) - nearest.searched, self._spec.data)
        return nearest

    def _reference(self) -> Reference:
        spec = self._spec
        if spec.evaluation.statistics is not None:
            file, samples = spec.evaluation.statistics, spec.evaluation.samples
            return StatisticsReference(file, self._distributed, self._extractor, spec.shape[1], samples)
        return self._dataset_reference()

    def _dataset_reference(self, label: int | None = None) -> DatasetReference:
        assert self._dataset is not None
        spec = self._spec
        return DatasetReference(spec.evaluation, spec.data, self._distributed, self._dataset, self._extractor, label)

    def _generated(self, config: Config, label: int | None = None) -> GeneratedImages:
        assert self._checkpoint is not None
        labels = self._dataset.index.labels if self._dataset is not None else np.empty(0, np.int64)
        generator = average_generator(config, self._checkpoint, self._distributed.device)
        return GeneratedImages(config, labels, self._distributed.device, generator, label)

    def _class_references(self) -> dict[int, DatasetReference]:
        """The real images of each class that has enough of them, by label.

        Raises UserError where there is no such class, and where `real_samples` leaves one too few.
        """
        assert self._dataset is not None
        labels = self._dataset.index.labels
        counts = np.bincount(labels[labels >= 0], minlength=len(self._classes))
        enough = np.flatnonzero(counts >= _MIN_CLASS_IMAGES).tolist()
        references = {label: self._dataset_reference(label) for label in enough}
        if not references:
            raise UserError(
                f"--per-class: {self._spec.against} has no class of {_MIN_CLASS_IMAGES} or more images, and a distance "
                f"needs them; leave --per-class out"
            )
        for label, reference in references.items():
            name = self._classes[label]
            if reference.count < _MIN_CLASS_IMAGES:
                raise UserError(
                    f"--per-class: {self._spec.against} has {reference.count} real images of the class {name!r:.80}, "
                    f"and a distance needs {_MIN_CLASS_IMAGES}; raise --real-samples, or leave --per-class out"
                )
        return references

    def _class_result(self, label: int, reference: DatasetReference, classes: int) -> ClassResult:
        config = self._spec.config
        assert config is not None
        samples = max(2, config.evaluation.samples // classes)
        evaluation = config.evaluation.model_copy(update={"samples": samples, "metrics": []})
        self._extractor.stage = "real images"
        evaluator = Evaluator(evaluation, self._distributed, self._extractor, reference)
        self._extractor.stage = "images"
        images = self._generated(config.model_copy(update={"evaluation": evaluation}), label)
        distance = evaluator.evaluate(images).distance
        return ClassResult(label, self._classes[label], samples, evaluator.real.statistics.count, distance)


def _metric_result(metric: str, scores: Scores, evaluator: Evaluator) -> MetricResult:
    return MetricResult(
        metric=metric,
        name=evaluator.name(metric),
        value=scores.distance if metric == FRECHET else scores.more[metric],
        std=scores.more.get(f"{metric}_std"),
        seconds=scores.seconds[timed_as(metric)],
    )
