"""The Fréchet distance of a generator, every rank doing its share; the real side is computed once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.data.decode import SampleDecoder, check_bad_samples
from distgan.data.index import Block
from distgan.data.storage import NotFoundError, Storage
from distgan.errors import UserError
from distgan.metrics.features import FeatureExtractor, load_extractor, to_uint8
from distgan.metrics.frechet import FeatureSums, GaussianStatistics, frechet_distance
from distgan.training.draws import Purpose, derive_seed
from distgan.training.labels import drawn_labels
from distgan.training.step import DTYPES, Labels
from distgan.training.weights import extractor_weights
from distgan.training.world import World

# Fixed parts of the work, so that results do not depend on the number of workers.
CHUNK = 64
_STATISTICS = "statistics"
_SELECTION_SEED = 0


def metric_name(extractor: str, samples: int) -> str:
    """The name of a distance with its count of generated images: `fd_lite0_2k`, `fd_lite0_500`."""
    return f"{extractor}_{samples // 1000}k" if samples >= 1000 else f"{extractor}_{samples}"


@dataclass(frozen=True)
class RealStatistics:
    """Statistics of the real images, and the distance between two halves of them."""

    statistics: GaussianStatistics
    floor: float


class Evaluator:
    """Measures generators against one data set. All its methods are called on every rank together."""

    def __init__(self, config: Config, world: World, data: Storage, decoder: SampleDecoder, run: Storage) -> None:
        """`run` keeps the real statistics where the data's own folder cannot be written."""
        self._config, self._world = config, world
        self._index, self._decoder = decoder.index, decoder
        self._places = [data.child(_STATISTICS), run.child(_STATISTICS)]
        weights = extractor_weights(config.evaluation)
        self._extractor: FeatureExtractor = load_extractor(config.evaluation.extractor, world.device, weights)
        self.metric = metric_name(config.evaluation.extractor, config.evaluation.samples)
        self.real = self._real_statistics()

    def distance(self, generator: nn.Module) -> float:
        """The distance of a generator in evaluation mode, the same number on every rank."""
        sums = FeatureSums.zeros(self._extractor.dimension, self._world.device)
        for images in self._generated(generator):
            sums.update(self._extractor(images))
        return self._between(self._joined(sums).statistics(), self.real.statistics)

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

    def _real_statistics(self) -> RealStatistics:
        """Of the good ones among the selected samples. Raises UserError where too many are bad."""
        real = self._kept_or_computed_statistics()
        check_bad_samples(self._real_count() - real.statistics.count, self._config.data)
        return real

    def _kept_or_computed_statistics(self) -> RealStatistics:
        key = self._statistics_key()
        found = self._world.agree(self._kept_statistics(key) if self._world.rank == 0 else None)
        if found is not None:
            return found
        one, other = (self._joined(self._real_sums(half)) for half in self._halves())
        computed = RealStatistics((one + other).statistics(), self._between(one.statistics(), other.statistics()))
        if self._world.rank == 0:
            self._keep_statistics(key, computed)
        return computed

    def _kept_statistics(self, key: str) -> RealStatistics | None:
        return next((found for place in self._places if (found := _load(place, key)) is not None), None)

    def _keep_statistics(self, key: str, computed: RealStatistics) -> None:
        beside_data, in_run = self._places
        try:
            _save(beside_data, key, computed)
        except UserError:
            _save(in_run, key, computed)

    def _statistics_key(self) -> str:
        """What the statistics depend on, as a file name."""
        config = self._config
        extractor, count = config.evaluation.extractor, self._real_count()
        images = [config.image_size, config.data.resize, config.data.bad_samples]
        everything = [self._index.hash, extractor, count, _SELECTION_SEED, *images]
        digest = hashlib.sha256(json.dumps(everything).encode()).hexdigest()
        return f"{extractor}-{count}-{digest[:16]}"

    def _real_count(self) -> int:
        total = len(self._index)
        return min(total, self._config.evaluation.real_samples or total)

    def _halves(self) -> list[NDArray[np.int64]]:
        """Sample numbers of two random halves of the selection, each in the order of the data."""
        selection = np.random.default_rng(_SELECTION_SEED).permutation(len(self._index))[: self._real_count()]
        return [np.sort(part) for part in np.array_split(selection, 2)]

    def _real_sums(self, samples: NDArray[np.int64]) -> FeatureSums:
        """Sums over this rank's contiguous share of the samples."""
        sums = FeatureSums.zeros(self._extractor.dimension, self._world.device)
        chunks = -(-len(samples) // CHUNK)
        first, stop = (chunks * rank // self._world.size for rank in (self._world.rank, self._world.rank + 1))
        images = self._real_images(samples[first * CHUNK : stop * CHUNK])
        for chunk in images:
            sums.update(self._extractor(torch.from_numpy(chunk).to(self._world.device)))
        return sums

    def _real_images(self, samples: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """The images of ascending sample numbers, uint8 (up to CHUNK, C, H, W), each block read once.

        Bad samples are left out where they are to be skipped.
        """
        block: Block | None = None
        data, chunk = b"", []
        for sample in samples.tolist():
            if block is None or sample >= block.stop:
                block = self._decoder.block_of(sample)
                (data,) = self._decoder.reader.read([block])
            image = self._decoder.decode(sample, block, data)
            if image is not None:
                chunk.append(image)
            if len(chunk) == CHUNK:
                yield np.stack(chunk)
                chunk = []
        if chunk:
            yield np.stack(chunk)

    def _between(self, one: GaussianStatistics, other: GaussianStatistics) -> float:
        """Their distance, computed once: ranks on unlike hardware would differ in the last bits."""
        return self._world.agree(frechet_distance(one, other) if self._world.rank == 0 else 0.0)

    def _joined(self, sums: FeatureSums) -> FeatureSums:
        return FeatureSums.from_tensor(self._world.all_reduce(sums.to_tensor()), self._extractor.dimension)


def _load(folder: Storage, key: str) -> RealStatistics | None:
    """The statistics kept in a folder; None where there are none, or their note is damaged: they are made anew."""
    try:
        floor = float(json.loads(folder.read_bytes(f"{key}.json"))["floor"])
        data = folder.read_bytes(f"{key}.npz")
    except (NotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return RealStatistics(GaussianStatistics.from_bytes(data, f"{folder.url}/{key}.npz"), floor)


def _save(folder: Storage, key: str, real: RealStatistics) -> None:
    """The statistics first, then the note that makes them known."""
    folder.write_bytes(f"{key}.npz", real.statistics.to_bytes())
    note = {"samples": real.statistics.count, "floor": real.floor}
    folder.write_bytes(f"{key}.json", json.dumps(note).encode())
