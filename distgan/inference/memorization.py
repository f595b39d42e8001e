"""Memorization: the training images nearest to samples, beside those nearest to real images.

A generator that copies makes samples nearer to its training images than new real images would be. The data themselves
give the reference: real images, each compared with all others. Meehan, Chaudhuri, Dasgupta, "A Non-Parametric Test to
Detect Data-Copying in Generative Models" (2020) compare such sets of distances; real images left out one at a time
replace the paper's held-out set.

Neither measure is sufficient: in pixels a blurred sample is near to everything, in features a poor one is near to
nothing. So there are both, and a picture (`nearest_picture`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distgan.data.dataset import Dataset
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import FeatureExtractor
from distgan.evaluation.image_source import CHUNK

NEIGHBORS = 5

# The share of real images that define a close distance.
CLOSE = 0.05

# Differences of so many pixels add up to at most 255 · 2^16, below 2^24: float32 is exact.
_EXACT = 2**16


@dataclass(frozen=True)
class Neighbors:
    """The nearest training images of K samples and of R real images, n of each, by one measure.

    A real image is not its own neighbor, but an exact duplicate is, at distance 0. Of equally near images the one with
    the lowest number comes first.

    Attributes:
        fake, real: distances, float64 (K, n) and (R, n), ascending along a row.
        fake_numbers, real_numbers: the neighbors' sample numbers in the data, int64 (K, n) and (R, n).
    """

    fake: NDArray[np.float64]
    fake_numbers: NDArray[np.int64]
    real: NDArray[np.float64]
    real_numbers: NDArray[np.int64]

    @property
    def fake_median(self) -> float:
        """Median of the samples' distances to their nearest training image."""
        return float(np.median(self.fake[:, 0]))

    @property
    def real_median(self) -> float:
        """Median of the real images' distances to their nearest other image."""
        return float(np.median(self.real[:, 0]))

    @property
    def limit(self) -> float:
        """The smallest distance within which at least `CLOSE` of the real images have another one.

        For fewer than 1 / CLOSE real images it is the smallest distance of all.
        """
        return float(np.quantile(self.real[:, 0], CLOSE, method="inverted_cdf"))

    @property
    def fake_close(self) -> float:
        """The share of samples, 0 to 1, with a training image within `limit`.

        New images of the same distribution have about `real_close`, copies more.
        """
        return float((self.fake[:, 0] <= self.limit).mean())

    @property
    def real_close(self) -> float:
        """The share of real images with another one within `limit`: `CLOSE`, or more if distances are equal."""
        return float((self.real[:, 0] <= self.limit).mean())


@dataclass(frozen=True)
class Nearest:
    """The result of `find_nearest`.

    Attributes:
        fakes: the samples, uint8 (K, C, H, W).
        real: sample numbers of the real images for comparison, int64 (R,), ascending; R is K, or all there are.
        training_images: the neighbors of samples, uint8 (C, H, W), by their sample numbers.
        searched: number of training images compared: all good ones.
        pixels: by mean absolute difference over pixels and channels, in gray levels, 0 to 255.
        features: by Euclidean distance of the extractor's features; None without an extractor.
        extractor: its name.
    """

    fakes: Tensor
    real: NDArray[np.int64]
    training_images: dict[int, Tensor]
    searched: int
    pixels: Neighbors
    features: Neighbors | None
    extractor: str | None

    @property
    def nearest_first(self) -> list[int]:
        """The samples by number, those nearest to a training image by pixels first."""
        order: list[int] = np.argsort(self.pixels.fake[:, 0], kind="stable").tolist()
        return order

    @property
    def measures(self) -> dict[str, Neighbors]:
        """By name: `pixels`, and `features` if there is an extractor."""
        return {"pixels": self.pixels} | ({"features": self.features} if self.features else {})

    @property
    def copies(self) -> int:
        """Number of samples that equal a training image, pixel for pixel."""
        return int((self.pixels.fake[:, 0] == 0).sum())

    @property
    def duplicates(self) -> int:
        """Number of the R real images that have an exact duplicate in the data."""
        return int((self.pixels.real[:, 0] == 0).sum())


def find_nearest(
    distributed: Distributed,
    dataset: Dataset,
    extractor: FeatureExtractor | None,
    fakes: Tensor,
    neighbors: int = NEIGHBORS,
    seed: int = 0,
) -> Nearest:
    """The nearest `neighbors` training images of each sample, and of as many real images drawn by `seed`.

    Collective, with the samples of rank 0, uint8 (K, C, H, W). The result is the same on every rank and for every
    number of ranks. Each rank reads its share of the data once, a chunk at a time; memory for images grows with K
    alone. Pixel distances are exact. Feature distances are float64, of float32 features; an exact copy is at 0 where
    features do not depend on the place in a batch, as on a CPU, and within rounding elsewhere.

    Without an extractor only pixels are compared. Raises UserError for data with too few images.
    """
    assert neighbors > 0
    fakes = distributed.broadcast(fakes.cpu())
    assert fakes.dtype == torch.uint8
    assert fakes.shape[1:] == dataset.shape
    real = distributed.broadcast(_drawn(dataset, len(fakes), seed) if distributed.rank == 0 else {})
    images = torch.cat([fakes, *(image[None] for image in real.values())]).to(distributed.device)
    query_numbers = torch.tensor([-1] * len(fakes) + list(real), device=distributed.device)
    searches = [_Search(_pixels, _mean_differences, images, query_numbers, neighbors)]
    if extractor is not None:
        searches.append(_Search(partial(_features, extractor), _euclidean_distances, images, query_numbers, neighbors))
    searched = _search_all(distributed, dataset, searches)
    if searched <= neighbors:
        raise UserError(
            f"the data have {searched} usable images: the nearest {neighbors} of each, without itself, need more than "
            f"{neighbors}; ask for fewer neighbors"
        )
    pixels, *features = [search.result(distributed, len(fakes)) for search in searches]
    near = np.unique(np.concatenate([each.fake_numbers for each in (pixels, *features)]))
    return Nearest(
        fakes,
        np.array(list(real), np.int64),
        distributed.broadcast(_by_number(dataset, near) if distributed.rank == 0 else {}),
        searched,
        pixels,
        features[0] if features else None,
        extractor.name if extractor else None,
    )


class _Search:
    """The nearest images so far, by one measure, of every query.

    `vectors` maps uint8 images (n, C, H, W) to vectors (n, d); `distances` compares all of two sets, (m, d) and (n, d)
    -> float64 (m, n). `query_numbers` are the sample numbers of queries from the data, -1 for others.
    """

    def __init__(
        self,
        vectors: Callable[[Tensor], Tensor],
        distances: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        query_numbers: Tensor,
        neighbors: int,
    ) -> None:
        self._vectors, self._compare, self._query_numbers = vectors, distances, query_numbers
        self._queries = torch.cat([vectors(chunk) for chunk in torch.split(images, CHUNK)])
        shape = (len(images), neighbors)
        self._distances = torch.full(shape, torch.inf, dtype=torch.float64, device=images.device)
        self._numbers = torch.full(shape, -1, device=images.device)

    def add(self, images: Tensor, numbers: Tensor) -> None:
        """Compares images of the data; sample numbers ascend from call to call."""
        distances = self._compare(self._queries, self._vectors(images))
        distances.masked_fill_(self._query_numbers[:, None] == numbers, torch.inf)
        self._keep_nearest(
            torch.cat([self._distances, distances], 1),
            torch.cat([self._numbers, numbers.expand(len(distances), -1)], 1),
        )

    def result(self, distributed: Distributed, fakes: int) -> Neighbors:
        """The neighbors among all ranks' images, on every rank; the first `fakes` queries are samples."""
        queries = len(self._numbers)
        distances, numbers = (distributed.gather_rows(kept) for kept in (self._distances, self._numbers))
        if distances is not None and numbers is not None:
            self._keep_nearest(
                torch.cat(torch.split(distances, queries), 1), torch.cat(torch.split(numbers, queries), 1)
            )
        nearest, whose = distributed.broadcast((self._distances.cpu().numpy(), self._numbers.cpu().numpy()))
        return Neighbors(nearest[:fakes], whose[:fakes], nearest[fakes:], whose[fakes:])

    def _keep_nearest(self, distances: Tensor, numbers: Tensor) -> None:
        """Numbers ascend along a row where distances are equal: a stable sort keeps the lowest."""
        order = distances.sort(dim=1, stable=True).indices[:, : self._numbers.shape[1]]
        self._distances, self._numbers = distances.gather(1, order), numbers.gather(1, order)


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1).float()


def _mean_differences(one: Tensor, other: Tensor) -> Tensor:
    parts = zip(torch.split(one, _EXACT, 1), torch.split(other, _EXACT, 1), strict=True)
    sums = [torch.cdist(some, others, 1).double() for some, others in parts]
    return torch.stack(sums).sum(0) / one.shape[1]


def _features(extractor: FeatureExtractor, images: Tensor) -> Tensor:
    """Always runs a whole chunk: the last bits of an image's features depend on the batch size."""
    missing = CHUNK - len(images)
    return extractor(torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]))[: len(images)].double()


def _euclidean_distances(one: Tensor, other: Tensor) -> Tensor:
    # The faster product of matrices does not give equal features the distance 0.
    return torch.cdist(one, other, 2, "donot_use_mm_for_euclid_dist")


def _search_all(distributed: Distributed, dataset: Dataset, searches: Sequence[_Search]) -> int:
    """Runs the searches over this rank's share of the data; returns the number of images of all ranks."""
    searched = torch.zeros(1, dtype=torch.int64, device=distributed.device)
    for numbers, chunk in _chunks(distributed, dataset):
        images = chunk.to(distributed.device)
        for search in searches:
            search.add(images, numbers.to(distributed.device))
        searched += len(images)
    return int(distributed.all_reduce(searched))


def _chunks(distributed: Distributed, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Sample numbers and images, uint8 (up to CHUNK, C, H, W), of this rank's contiguous share of the data.

    A chunk's images do not depend on the number of ranks, nor on bad samples that are skipped before.
    """
    total = len(dataset.index)
    chunks = -(-total // CHUNK)
    first, stop = (
        min(chunks * rank // distributed.size * CHUNK, total) for rank in (distributed.rank, distributed.rank + 1)
    )
    for _, chunk in itertools.groupby(dataset.images(np.arange(first, stop)), lambda found: found[0] // CHUNK):
        yield _stacked(chunk)


def _stacked(found: Iterable[tuple[int, NDArray[np.uint8]]]) -> tuple[Tensor, Tensor]:
    numbers, images = zip(*found, strict=True)
    return torch.tensor(numbers), torch.from_numpy(np.stack(images))


def _drawn(dataset: Dataset, count: int, seed: int) -> dict[int, Tensor]:
    """`count` good images of the data, or all if there are fewer, by ascending sample number."""
    order = np.random.default_rng(seed).permutation(len(dataset.index))
    drawn: dict[int, Tensor] = {}
    for part in np.split(order, range(count, len(order), count)):
        drawn |= _by_number(dataset, np.sort(part))
        if len(drawn) >= count:
            break
    return dict(sorted(drawn.items())[:count])


def _by_number(dataset: Dataset, samples: NDArray[np.int64]) -> dict[int, Tensor]:
    return {number: torch.tensor(image) for number, image in dataset.images(samples)}
