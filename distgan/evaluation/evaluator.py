"""Evaluates images against real ones; every rank computes the features of its share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distgan.config.schema import DataConfig, EvaluationConfig
from distgan.data.dataset import Dataset
from distgan.distributed import Distributed
from distgan.evaluation.extractors.extractor import FeatureExtractor, load_extractor
from distgan.evaluation.extractors.weights import extractor_weights
from distgan.evaluation.feature_statistics import FeatureSums
from distgan.evaluation.image_source import CHUNK, ImageSource
from distgan.evaluation.metrics.diversity import diversity
from distgan.evaluation.metrics.metric import MetricInputs
from distgan.evaluation.metrics.registry import (
    FRECHET,
    MetricValues,
    check_metrics,
    compute_metrics,
    further_metrics,
    metric_name,
    needed,
)
from distgan.evaluation.reference import DatasetReference, Reference
from distgan.evaluation.reference_files import StatisticsReference


@dataclass(frozen=True)
class Scores:
    """The numbers of one pass over images.

    Attributes:
        distance: the Fréchet distance.
        more: other metrics by the configuration's names; `NAME_std` for those that spread over subsets.
        diversity: how far the images lie apart, relative to real ones (`metrics.diversity`).
        seconds: by kind of work.
    """

    distance: float
    more: dict[str, float]
    diversity: float
    seconds: dict[str, float]


class Evaluator:
    """Evaluates images against a reference. All its methods are collective.

    Attributes:
        real: statistics of the real images.
        num_features: length of a feature vector.
    """

    def __init__(
        self, evaluation: EvaluationConfig, distributed: Distributed, extractor: FeatureExtractor, reference: Reference
    ) -> None:
        """Raises UserError where a metric cannot be computed from so many images, or without logits."""
        self._distributed, self._extractor, self._reference = distributed, extractor, reference
        self._samples = evaluation.samples
        self.num_features = extractor.dimension
        self._metrics = further_metrics(evaluation)
        self._needs = needed(self._metrics)
        needs_real = "real_features" in self._needs
        check_metrics(self._metrics, extractor, self._samples, reference.count if needs_real else self._samples)
        self.real = reference.statistics()
        self._real_features = reference.features(self._samples) if needs_real else torch.empty(0)

    def evaluate(self, images: ImageSource) -> Scores:
        """The scores, the same on every rank. Raises UserError for images that cannot be read or are not finite."""
        begin = time.perf_counter()
        keeps_features = bool(self._needs - {"statistics"})
        sums = FeatureSums.zeros(self._extractor.dimension, self._distributed.device)
        kept = [torch.zeros(0, self._extractor.dimension, device=self._distributed.device)]
        for chunk in self._share(images):
            features = self._extractor(chunk)
            sums.update(features)
            if keeps_features:
                kept.append(features)
        seconds = {"features": time.perf_counter() - begin}
        fake = sums.all_reduced(self._distributed).statistics()
        gathered = self._distributed.gather_rows(torch.cat(kept)) if keeps_features else kept[0]
        real = self.real.statistics

        def compute() -> tuple[MetricValues, float]:
            assert gathered is not None
            features = gathered[self._order(images.count).to(gathered.device)] if keeps_features else gathered
            inputs = MetricInputs(
                fake_statistics=fake,
                real_statistics=real,
                fake_features=features,
                real_features=self._real_features.to(features.device),
                classify=getattr(self._extractor, "logits", None),
            )
            return compute_metrics([FRECHET, *self._metrics], inputs), diversity(fake, real)

        # On rank 0 alone: ranks on unlike hardware would differ in the last bits.
        found, spread = self._distributed.from_rank_0(compute)
        distance = found.values.pop(FRECHET)
        return Scores(distance, found.values, spread, seconds | found.seconds)

    def name(self, metric: str) -> str:
        """The name of a metric, or of its `_std`, in reports: with extractor and number of samples."""
        suffix = "" if metric in {FRECHET, *self._metrics} else "_std"
        name = metric.removesuffix(suffix)
        return metric_name(name, self._extractor.name, self._samples, self._reference.is_complete) + suffix

    def _share(self, images: ImageSource) -> Iterator[Tensor]:
        """This rank's chunks; chunk c belongs to rank c mod world size."""
        for number in range(self._distributed.rank, -(-images.count // CHUNK), self._distributed.size):
            yield images.chunk(number).to(self._distributed.device)

    def _order(self, count: int) -> Tensor:
        """The row of image i among the rows gathered from all ranks, for each i."""
        size = self._distributed.size
        rows = torch.split(torch.arange(count), CHUNK)
        places = torch.cat([part for rank in range(size) for part in rows[rank::size]])
        return places.argsort()


def build_evaluator(
    evaluation: EvaluationConfig, data: DataConfig, distributed: Distributed, dataset: Dataset
) -> Evaluator:
    """The evaluator of a configuration: against its data set, or the file of statistics that it names. Collective."""
    extractor = configured_extractor(evaluation, distributed)
    reference = build_reference(evaluation, data, distributed, dataset, extractor)
    return Evaluator(evaluation, distributed, extractor, reference)


def build_reference(
    evaluation: EvaluationConfig,
    data: DataConfig,
    distributed: Distributed,
    dataset: Dataset,
    extractor: FeatureExtractor,
) -> Reference:
    """The reference of a configuration: the file of statistics that it names, else its data set. Collective."""
    if evaluation.statistics is not None:
        return StatisticsReference(evaluation.statistics, distributed, extractor, dataset.shape[1], evaluation.samples)
    return DatasetReference(evaluation, data, distributed, dataset, extractor)


def configured_extractor(evaluation: EvaluationConfig, distributed: Distributed) -> FeatureExtractor:
    """The extractor on this rank's device. Raises UserError where it, or the weights that it needs, cannot be had."""
    return load_extractor(evaluation.extractor, distributed.device, extractor_weights(evaluation))
