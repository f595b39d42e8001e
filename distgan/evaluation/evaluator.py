"""Measures images against a data set's, every rank doing its share."""

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
from distgan.evaluation.image_source import CHUNK, ImageSource
from distgan.evaluation.metrics.diversity import diversity
from distgan.evaluation.metrics.frechet import FeatureSums
from distgan.evaluation.metrics.registry import (
    NEEDS_REAL_FEATURES,
    Measured,
    check_measures,
    measure,
    measures_of,
    metric_name,
)
from distgan.evaluation.reference import DatasetReference, Reference, between
from distgan.evaluation.reference_files import StatisticsReference
from distgan.storage.storage import Storage


@dataclass(frozen=True)
class Scores:
    """What one pass over images gave.

    Attributes:
        distance: the Fréchet distance.
        more: other measures as the configuration calls them, and what those that spread over subsets have as `_std`.
        diversity: how far the images lie apart against real ones (`metrics.diversity`).
        seconds: by kind of work.
    """

    distance: float
    more: dict[str, float]
    diversity: float
    seconds: dict[str, float]


class Comparison:
    """Measures images against real ones. All its methods are called on every rank together.

    Attributes:
        real: statistics of the real images.
        num_features: numbers that the extractor makes of an image.
    """

    def __init__(
        self, evaluation: EvaluationConfig, distributed: Distributed, extractor: FeatureExtractor, real_side: Reference
    ) -> None:
        self._evaluation, self._world, self._extractor, self._real_side = evaluation, distributed, extractor, real_side
        self.num_features = extractor.dimension
        self._metrics = measures_of(evaluation)
        needs_real = NEEDS_REAL_FEATURES.intersection(self._metrics)
        check_measures(
            self._metrics, extractor, evaluation.samples, real_side.count if needs_real else evaluation.samples
        )
        self.real = real_side.statistics()
        self._real_features = real_side.features(evaluation.samples) if needs_real else torch.empty(0)

    def evaluate(self, images: ImageSource) -> Scores:
        """The same on every rank."""
        begin = time.perf_counter()
        sums, kept = FeatureSums.zeros(self._extractor.dimension, self._world.device), []
        for chunk in self._share(images):
            features = self._extractor(chunk)
            sums.update(features)
            if self._metrics:
                kept.append(features)
        measured = time.perf_counter()
        sums = FeatureSums.from_tensor(self._world.all_reduce(sums.to_tensor()), self._extractor.dimension)
        fake, real = sums.statistics(), self.real.statistics
        distance = between(self._world, fake, real)
        seconds = {"features": measured - begin, "frechet": time.perf_counter() - measured}
        more = self._measured(kept, images.count) if self._metrics else Measured({}, {})
        spread = self._world.broadcast(diversity(fake, real))
        return Scores(distance, more.values, spread, seconds | more.seconds)

    def name(self, measured: str) -> str:
        """How a measure, or the `_std` of one, is called in reports: with extractor and number of samples."""
        measure_of, is_deviation = measured.removesuffix("_std"), measured.endswith("_std")
        named = metric_name(measure_of, self._extractor.name, self._evaluation.samples, self._real_side.is_whole)
        return f"{named}_std" if is_deviation else named

    def _share(self, images: ImageSource) -> Iterator[Tensor]:
        """This rank's chunks; chunk c belongs to rank c mod world size."""
        for number in range(self._world.rank, -(-images.count // CHUNK), self._world.size):
            yield images.chunk(number).to(self._world.device)

    def _measured(self, kept: list[Tensor], count: int) -> Measured:
        """What needs all features in one place: on rank 0, whose numbers all get."""
        empty = torch.zeros(0, self._extractor.dimension, device=self._world.device)
        gathered = self._world.gather_rows(torch.cat([empty, *kept]))
        found = Measured({}, {})
        if gathered is not None:
            fake = gathered[self._order(count).to(gathered.device)]
            found = measure(self._metrics, self._real_features.to(fake.device), fake, self._extractor)
        return self._world.broadcast(found)

    def _order(self, count: int) -> Tensor:
        """Where image i is among the rows gathered from the ranks, for each i."""
        size = self._world.size
        rows = torch.split(torch.arange(count), CHUNK)
        places = torch.cat([part for rank in range(size) for part in rows[rank::size]])
        return places.argsort()


class Evaluator(Comparison):
    """Measures images against the real side of a configuration: its data set, or the statistics that it names."""

    def __init__(
        self,
        evaluation: EvaluationConfig,
        data: DataConfig,
        distributed: Distributed,
        storage: Storage,
        decoder: Dataset,
    ) -> None:
        extractor = configured_extractor(evaluation, distributed)
        real_side: Reference
        if evaluation.statistics is not None:
            real_side = StatisticsReference(
                evaluation.statistics, distributed, extractor, decoder.shape[1], evaluation.samples
            )
        else:
            real_side = DatasetReference(evaluation, data, distributed, storage, decoder, extractor)
        super().__init__(evaluation, distributed, extractor, real_side)


def configured_extractor(evaluation: EvaluationConfig, distributed: Distributed) -> FeatureExtractor:
    """The extractor on this rank's device. Raises UserError where it, or the weights that it needs, cannot be had."""
    return load_extractor(evaluation.extractor, distributed.device, extractor_weights(evaluation))
