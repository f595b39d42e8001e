"""Measures a generator against the real images, every rank doing its share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.data.decode import SampleDecoder
from distgan.data.storage import Storage
from distgan.metrics.diversity import diversity
from distgan.metrics.features import FeatureExtractor, load_extractor, to_uint8
from distgan.metrics.frechet import FeatureSums
from distgan.metrics.measures import NEEDS_REAL_FEATURES, Measured, check_measures, measure, metric_name
from distgan.training.draws import Purpose, derive_seed
from distgan.training.labels import drawn_labels
from distgan.training.real_images import CHUNK, RealImages, between
from distgan.training.step import DTYPES, Labels
from distgan.training.weights import extractor_weights
from distgan.training.world import World


@dataclass(frozen=True)
class Scores:
    """What one pass over samples gave: the Fréchet distance, other measures by name, and seconds by kind of work.

    `diversity` is how far samples lie apart against real images (`metrics.diversity`).
    """

    distance: float
    more: dict[str, float]
    seconds: dict[str, float]
    diversity: float


class Evaluator:
    """Measures generators against one data set. All its methods are called on every rank together."""

    def __init__(self, config: Config, world: World, data: Storage, decoder: SampleDecoder) -> None:
        self._config, self._world, self._index = config, world, decoder.index
        weights = extractor_weights(config.evaluation)
        self._extractor: FeatureExtractor = load_extractor(config.evaluation.extractor, world.device, weights)
        self.num_features = self._extractor.dimension
        self._real_images = RealImages(config, world, data, decoder, self._extractor)
        evaluation = config.evaluation
        check_measures(evaluation.metrics, self._extractor, evaluation.samples, self._real_images.count)
        self.metric = self._name("frechet")
        self.real = self._real_images.statistics()
        needs_real = NEEDS_REAL_FEATURES.intersection(evaluation.metrics)
        self._real_features = self._real_images.features(evaluation.samples) if needs_real else torch.empty(0)

    def evaluate(self, generator: nn.Module) -> Scores:
        """Of a generator in evaluation mode; the same on every rank."""
        begin = time.perf_counter()
        metrics = self._config.evaluation.metrics
        sums, kept = FeatureSums.zeros(self._extractor.dimension, self._world.device), []
        for images in self._generated(generator):
            features = self._extractor(images)
            sums.update(features)
            if metrics:
                kept.append(features)
        measured = time.perf_counter()
        sums = FeatureSums.from_tensor(self._world.all_reduce(sums.to_tensor()), self._extractor.dimension)
        generated = sums.statistics()
        distance = between(self._world, generated, self.real.statistics)
        seconds = {"features": measured - begin, "frechet": time.perf_counter() - measured}
        more = self._measured(kept) if metrics else Measured({}, {})
        named = {self._name(name): value for name, value in more.values.items()}
        spread = self._world.agree(diversity(generated, self.real.statistics))
        return Scores(distance, named, seconds | more.seconds, spread)

    def distance(self, generator: nn.Module) -> float:
        """The Fréchet distance alone."""
        return self.evaluate(generator).distance

    def _measured(self, kept: list[Tensor]) -> Measured:
        """What needs all features in one place: on rank 0, whose numbers all get."""
        empty = torch.zeros(0, self._extractor.dimension, device=self._world.device)
        gathered = self._world.gather_rows(torch.cat([empty, *kept]))
        found = Measured({}, {})
        if gathered is not None:
            fake = gathered[self._order().to(gathered.device)]
            metrics = self._config.evaluation.metrics
            found = measure(metrics, self._real_features.to(fake.device), fake, self._extractor)
        return self._world.agree(found)

    def _order(self) -> Tensor:
        """Where sample i is among the rows gathered from the ranks, for each i."""
        samples, size = self._config.evaluation.samples, self._world.size
        rows = torch.split(torch.arange(samples), CHUNK)
        places = torch.cat([part for rank in range(size) for part in rows[rank::size]])
        return places.argsort()

    def _name(self, measured: str) -> str:
        evaluation = self._config.evaluation
        name, is_deviation = measured.removesuffix("_std"), measured.endswith("_std")
        named = metric_name(name, self._extractor.name, evaluation.samples, self._real_images.is_whole)
        return f"{named}_std" if is_deviation else named

    @torch.inference_mode()
    def _generated(self, generator: nn.Module) -> Iterator[Tensor]:
        """This rank's chunks of images, 8 bit as saved ones are; chunk c belongs to rank c mod world size."""
        config = self._config
        samples, dtype = config.evaluation.samples, DTYPES[config.training.precision]
        for chunk in range(self._world.rank, -(-samples // CHUNK), self._world.size):
            seed = derive_seed(config.seed, Purpose.EVALUATION_LATENTS, chunk)
            count = min(CHUNK, samples - chunk * CHUNK)
            latents = torch.randn(count, config.latent_dim, generator=torch.Generator().manual_seed(seed))
            yield to_uint8(generator(latents.to(self._world.device, dtype), *self._labels(chunk, count)))

    def _labels(self, chunk: int, count: int) -> Labels:
        """Labels of a chunk for a conditional generator, as frequent as among all real images."""
        if self._config.num_classes is None:
            return ()
        seed = derive_seed(self._config.seed, Purpose.EVALUATION_LABELS, chunk)
        return (drawn_labels(self._index.labels, count, seed).to(self._world.device),)
