"""The reference of an evaluation: statistics and features of real images, computed once by all workers and stored."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import math
import tokenize
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distgan.bounds import MOST_UNPACKED_BYTES
from distgan.config.schema import DataConfig, EvaluationConfig
from distgan.data.dataset import Dataset, check_bad_samples
from distgan.distributed import Distributed
from distgan.errors import DamagedError, UserError
from distgan.evaluation.extractors.extractor import FeatureExtractor
from distgan.evaluation.extractors.published import feature_revision
from distgan.evaluation.feature_statistics import FeatureSums, GaussianStatistics
from distgan.evaluation.image_source import CHUNK
from distgan.evaluation.metrics.frechet import frechet_distance
from distgan.evaluation.reference_files import RealStatistics, floor_images
from distgan.storage.local_files import cache_folder
from distgan.storage.storage import Storage

T = TypeVar("T")


class Reference(Protocol):
    """The real images that others are compared with. Its methods are collective.

    count: number of real images; 0 where that is not known. is_complete: whether they are all images of their data set.
    """

    count: int
    is_complete: bool

    def statistics(self) -> RealStatistics: ...

    def features(self, count: int) -> Tensor:
        """Features of `count` of the images, or all if there are fewer: (n, d) on rank 0, (0, d) on the others."""
        ...


_log = logging.getLogger(__name__)

_FOLDER = "statistics"

_SELECTION_SEED = 0


class DatasetReference:
    """A data set, or its images of one label. See `Reference`.

    Results are stored beside the data, or in this machine's cache folder where the data cannot be written. Files
    appear whole, so that several processes may compute the same ones at once. Files that are damaged or cannot be read
    are computed again: a bucket without the right to list denies access to objects that do not exist.

    Attributes:
        stored_at: URL of the stored statistics, on rank 0 after `statistics`; None where nothing can be written.
    """

    def __init__(
        self,
        evaluation: EvaluationConfig,
        data: DataConfig,
        distributed: Distributed,
        dataset: Dataset,
        extractor: FeatureExtractor,
        label: int | None = None,
    ) -> None:
        self._data, self._distributed, self._dataset, self._extractor = data, distributed, dataset, extractor
        self._folders = [Storage.open(str(data.url)).child(_FOLDER), Storage.open(str(cache_folder())).child(_FOLDER)]
        self._image_size = dataset.shape[1]
        self._label, self._drawn = label, min(len(dataset.index), evaluation.real_samples or len(dataset.index))
        self.is_complete = self._drawn == len(dataset.index)
        self.count = len(self._selection())
        self._floor_images = floor_images(evaluation.samples, self.count)
        self.stored_at: str | None = None

    def statistics(self) -> RealStatistics:
        """Statistics of the selected images, bad ones left out. Raises UserError where too many are bad.

        The floor is that of `evaluation.samples` images (see `floor_images`).
        """
        name, count = f"{self._key(self.count)}.npz", self._floor_images
        real = self._distributed.broadcast(self._stored_statistics(name) if self._distributed.rank == 0 else None)
        if real is None:
            first, rest = (self._sums(part).all_reduced(self._distributed) for part in self._parts())
            statistics = (first + rest).statistics()
            floor = frechet_on_rank_0(self._distributed, first.statistics(), statistics)
            extractor = self._extractor.name
            real = RealStatistics(
                statistics, floor, extractor, self._image_size, count, revision=feature_revision(extractor)
            )
            if self._distributed.rank == 0:
                self.stored_at = self._store(name, real.to_bytes())
        elif real.floor_images != count:
            real = replace(real, floor=self._floor(real.statistics), floor_images=count)
        check_bad_samples(self.count - real.statistics.count, self._data)
        return real

    def features(self, count: int) -> Tensor:
        """Features of the first `count` images of the selection; see `Reference`."""
        count = min(count, self.count)
        name = f"{self._key(count)}-features.npy"
        kept = self._stored_features(name) if self._distributed.rank == 0 else None
        if not self._distributed.broadcast(kept is not None):
            parts = list(self._feature_chunks(np.sort(self._selection()[:count])))
            share = torch.cat(parts) if parts else torch.zeros(0, self._extractor.dimension)
            kept = self._distributed.gather_rows(share)
            if kept is not None:
                self._store(name, _npy(kept))
        return kept if kept is not None else torch.zeros(0, self._extractor.dimension)

    def _floor(self, real: GaussianStatistics) -> float:
        """The floor for statistics that are stored with the floor of another number of images."""
        name = f"{self._key(self.count)}-floor-{self._floor_images}.json"
        floor = self._distributed.broadcast(
            self._read_stored(name, _floor_from_json) if self._distributed.rank == 0 else None
        )
        if floor is None:
            first, _ = self._parts()
            sums = self._sums(first).all_reduced(self._distributed)
            floor = frechet_on_rank_0(self._distributed, sums.statistics(), real)
            if self._distributed.rank == 0:
                self._store(name, json.dumps({"floor": floor}).encode())
        return floor

    def _key(self, count: int) -> str:
        """The file name, without suffix, of everything that the features depend on."""
        extractor = self._extractor.name
        images = [self._image_size, self._data.resize, self._data.bad_samples]
        everything = [self._dataset.index.hash, extractor, count, _SELECTION_SEED, *images]
        if self._label is not None:
            everything += [self._label, self._drawn]
        if (revision := feature_revision(extractor)) > 1:
            everything.append(f"revision {revision}")
        digest = hashlib.sha256(json.dumps(everything).encode()).hexdigest()
        return f"{extractor}-{count}-{digest[:16]}"

    def _stored_statistics(self, name: str) -> RealStatistics | None:
        def read(data: bytes, source: str) -> RealStatistics:
            statistics, self.stored_at = RealStatistics.from_bytes(data, source), source
            return statistics

        return self._read_stored(name, read)

    def _stored_features(self, name: str) -> Tensor | None:
        dimension = self._extractor.dimension
        return self._read_stored(name, lambda data, source: _from_npy(data, source, dimension))

    def _read_stored(self, name: str, read: Callable[[bytes, str], T]) -> T | None:
        """The content of a stored file; None where it is missing or damaged."""
        retry = self._dataset.reader.retry
        for place in self._folders:
            try:
                found = retry(partial(place.read_bytes, name, most=MOST_UNPACKED_BYTES))
                return read(found, f"{place.url}/{name}")
            except UserError:
                continue
        return None

    def _store(self, name: str, data: bytes) -> str | None:
        """Stores a file; returns its URL, or None where that fails."""
        for place in self._folders:
            with suppress(UserError):
                place.write_bytes(name, data)
                return f"{place.url}/{name}"
        places = " or ".join(place.url for place in self._folders)
        _log.warning("statistics of the real images cannot be stored in %s; each run computes them again", places)
        return None

    def _selection(self) -> NDArray[np.int64]:
        index = self._dataset.index
        drawn = np.random.default_rng(_SELECTION_SEED).permutation(len(index))[: self._drawn]
        return drawn if self._label is None else drawn[index.labels[drawn] == self._label]

    def _parts(self) -> list[NDArray[np.int64]]:
        """Sample numbers of the selection, ascending: those for the floor, and the others."""
        return [np.sort(part) for part in np.split(self._selection(), [self._floor_images])]

    def _sums(self, samples: NDArray[np.int64]) -> FeatureSums:
        """Sums over this rank's share of the samples."""
        sums = FeatureSums.zeros(self._extractor.dimension, self._distributed.device)
        for features in self._feature_chunks(samples):
            sums.update(features)
        return sums

    def _feature_chunks(self, samples: NDArray[np.int64]) -> Iterator[Tensor]:
        """Features of this rank's contiguous share of ascending sample numbers, a chunk at a time."""
        chunks = -(-len(samples) // CHUNK)
        rank, size = self._distributed.rank, self._distributed.size
        first, stop = chunks * rank // size, chunks * (rank + 1) // size
        for chunk in real_images(self._dataset, samples[first * CHUNK : stop * CHUNK]):
            yield self._extractor(torch.from_numpy(chunk).to(self._distributed.device))


def real_images(dataset: Dataset, samples: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """The images of ascending sample numbers, uint8 (up to CHUNK, C, H, W). Each block is read once.

    With `data.bad_samples=skip` bad samples are left out.
    """
    images = (image for _, image in dataset.images(samples))
    while chunk := list(itertools.islice(images, CHUNK)):
        yield np.stack(chunk)


def frechet_on_rank_0(distributed: Distributed, one: GaussianStatistics, other: GaussianStatistics) -> float:
    """The Fréchet distance, computed on rank 0 for every rank: different hardware gives different last bits."""
    return distributed.broadcast(frechet_distance(one, other) if distributed.rank == 0 else 0.0)


def _npy(features: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, features.cpu().numpy(), allow_pickle=False)
    return buffer.getvalue()


def _floor_from_json(data: bytes, source: str) -> float:
    try:
        floor = json.loads(data)["floor"]
        if not (isinstance(floor, float) and math.isfinite(floor)):
            raise ValueError
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedError(f"{source} is damaged") from error
    return floor


def _from_npy(data: bytes, source: str, dimension: int) -> Tensor:
    try:
        features = np.load(io.BytesIO(data), allow_pickle=False)
        if features.dtype != np.float32 or features.ndim != 2 or features.shape[1] != dimension:
            raise ValueError
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        raise DamagedError(f"{source} is damaged") from error
    return torch.from_numpy(features)
