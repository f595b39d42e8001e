"""Memorisation: the training images nearest to samples, beside those nearest to real images.

A generator that copies makes samples that lie nearer to its training images than new images of their kind would. How
near those would lie the data themselves say: real images drawn from them, each against all the others. To compare the
two sets of distances is the idea of Meehan, Chaudhuri, Dasgupta, "A Non-Parametric Test to Detect Data-Copying in
Generative Models" (2020); real images left out one at a time stand in for the paper's held-out set.

Neither measure is beyond doubt: in pixels a blurred sample is near to everything, in features a poor one is near to
nothing. So there are two, and a picture (`report.nearest`) to judge by.
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

# The share of real images that are as near to another one as a sample must be to count as close.
CLOSE = 0.05

# Differences of so many pixels add up to at most 255 · 2^16, below 2^24: whole numbers that float32 holds exactly.
_EXACT = 2**16


@dataclass(frozen=True)
class Neighbors:
    """The nearest training images of K samples and of R real images, n of each, by one measure.

    A real image is not its own neighbor; an exact duplicate of it is one, at distance 0. Of images equally near the
    one with the lowest number comes first.

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
        """Of the samples' distances to their nearest training image."""
        return float(np.median(self.fake[:, 0]))

    @property
    def real_median(self) -> float:
        """Of the real images' distances to their nearest other image."""
        return float(np.median(self.real[:, 0]))

    @property
    def limit(self) -> float:
        """The smallest distance within which at least `CLOSE` of the real images have another one.

        Of less than 1 / CLOSE real images it is the smallest distance of all.
        """
        return float(np.quantile(self.real[:, 0], CLOSE, method="inverted_cdf"))

    @property
    def fake_close(self) -> float:
        """The verdict: the share of samples, 0 to 1, with a training image within `limit`.

        New images of the data's kind would have about `real_close`; copies have more.
        """
        return float((self.fake[:, 0] <= self.limit).mean())

    @property
    def real_close(self) -> float:
        """The share of real images with another one within `limit`: `CLOSE`, or more where distances are equal."""
        return float((self.real[:, 0] <= self.limit).mean())


@dataclass(frozen=True)
class Nearest:
    """What `find_nearest` found.

    Attributes:
        fakes: the samples, uint8 (K, C, H, W).
        real: sample numbers of the real images that stand beside them, int64 (R,), ascending; R is K, or all there are.
        training_images: those that are near to a sample, uint8 (C, H, W), by their sample numbers.
        searched: how many training images were looked at: all good ones.
        pixels: by mean absolute difference over pixels and channels, in grey levels, 0 to 255.
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
    def measures(self) -> dict[str, Neighbors]:
        """Those that were taken: `pixels`, and `features` where there was an extractor."""
        return {"pixels": self.pixels} | ({"features": self.features} if self.features else {})

    @property
    def copies(self) -> int:
        """Samples that are a training image, pixel for pixel."""
        return int((self.pixels.fake[:, 0] == 0).sum())

    @property
    def duplicates(self) -> int:
        """Real images, of the R drawn, of which the data have an exact duplicate."""
        return int((self.pixels.real[:, 0] == 0).sum())


def find_nearest(
    distributed: Distributed,
    decoder: Dataset,
    extractor: FeatureExtractor | None,
    fakes: Tensor,
    neighbors: int = NEIGHBORS,
    seed: int = 0,
) -> Nearest:
    """The nearest `neighbors` training images of each sample, and of as many real images drawn by `seed`.

    Called on every rank together, with the samples of rank 0, uint8 (K, C, H, W); the result is the same on every rank,
    and for every number of them. One pass over the whole data set, each rank reading its share, of which a chunk is
    held at a time; memory for images grows with K alone. Pixel distances are exact. Those of features are float64, of
    float32 features; an exact copy lies at 0 where an image's features do not depend on its place in a batch, as on a
    CPU, and within rounding elsewhere.

    Without an extractor only pixels are compared. Raises UserError for data with too few images.
    """
    assert neighbors > 0
    fakes = distributed.broadcast(fakes.cpu())
    assert fakes.dtype == torch.uint8
    assert fakes.shape[1:] == decoder.shape
    real = distributed.broadcast(_drawn(decoder, len(fakes), seed) if distributed.rank == 0 else {})
    images = torch.cat([fakes, *(image[None] for image in real.values())]).to(distributed.device)
    own = torch.tensor([-1] * len(fakes) + list(real), device=distributed.device)
    searches = [_Search(_pixels, _mean_differences, images, own, neighbors)]
    if extractor is not None:
        searches.append(_Search(partial(_features, extractor), _euclidean_distances, images, own, neighbors))
    searched = _look_at_all(distributed, decoder, searches)
    if searched <= neighbors:
        raise UserError(
            f"the data have {searched} images that can be used: for the nearest {neighbors} of each, itself left out, "
            f"they must be more than {neighbors}; ask for fewer neighbors"
        )
    pixels, *features = [search.found(distributed, len(fakes)) for search in searches]
    near = np.unique(np.concatenate([each.fake_numbers for each in (pixels, *features)]))
    return Nearest(
        fakes,
        np.array(list(real), np.int64),
        distributed.broadcast(_by_number(decoder, near) if distributed.rank == 0 else {}),
        searched,
        pixels,
        features[0] if features else None,
        extractor.name if extractor else None,
    )


class _Search:
    """The nearest images so far, by one measure, of every query.

    `vectors` makes of uint8 images (n, C, H, W) what is compared, (n, d), and `distances` compares all of one set with
    all of another, (m, d) and (n, d) -> float64 (m, n). `own` says of each query which sample number is the query
    itself, -1 for none.
    """

    def __init__(
        self,
        vectors: Callable[[Tensor], Tensor],
        distances: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        own: Tensor,
        neighbors: int,
    ) -> None:
        self._vectors, self._compare, self._own = vectors, distances, own
        self._queries = torch.cat([vectors(chunk) for chunk in torch.split(images, CHUNK)])
        shape = (len(images), neighbors)
        self._distances = torch.full(shape, torch.inf, dtype=torch.float64, device=images.device)
        self._numbers = torch.full(shape, -1, device=images.device)

    def look_at(self, images: Tensor, numbers: Tensor) -> None:
        """Images of the data; sample numbers ascend from call to call."""
        distances = self._compare(self._queries, self._vectors(images))
        distances.masked_fill_(self._own[:, None] == numbers, torch.inf)
        self._keep_nearest(
            torch.cat([self._distances, distances], 1),
            torch.cat([self._numbers, numbers.expand(len(distances), -1)], 1),
        )

    def found(self, distributed: Distributed, fakes: int) -> Neighbors:
        """Of all ranks' images, on every rank; the first `fakes` queries are samples."""
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
    """Always of a whole chunk: the last bits of an image's features depend on the size of a batch."""
    missing = CHUNK - len(images)
    return extractor(torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]))[: len(images)].double()


def _euclidean_distances(one: Tensor, other: Tensor) -> Tensor:
    # The faster way, by a product of matrices, does not give equal features the distance 0.
    return torch.cdist(one, other, 2, "donot_use_mm_for_euclid_dist")


def _look_at_all(distributed: Distributed, decoder: Dataset, searches: Sequence[_Search]) -> int:
    """Shows each search this rank's share of the data; returns how many images all ranks have seen."""
    searched = torch.zeros(1, dtype=torch.int64, device=distributed.device)
    for numbers, chunk in _chunks(distributed, decoder):
        images = chunk.to(distributed.device)
        for search in searches:
            search.look_at(images, numbers.to(distributed.device))
        searched += len(images)
    return int(distributed.all_reduce(searched))


def _chunks(distributed: Distributed, decoder: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Sample numbers and images, uint8 (up to CHUNK, C, H, W), of this rank's contiguous share of the data.

    Which images come together does not depend on the number of ranks, nor on bad ones that are skipped before them.
    """
    total = len(decoder.index)
    chunks = -(-total // CHUNK)
    first, stop = (
        min(chunks * rank // distributed.size * CHUNK, total) for rank in (distributed.rank, distributed.rank + 1)
    )
    for _, chunk in itertools.groupby(decoder.images(np.arange(first, stop)), lambda found: found[0] // CHUNK):
        yield _stacked(chunk)


def _stacked(found: Iterable[tuple[int, NDArray[np.uint8]]]) -> tuple[Tensor, Tensor]:
    numbers, images = zip(*found, strict=True)
    return torch.tensor(numbers), torch.from_numpy(np.stack(images))


def _drawn(decoder: Dataset, count: int, seed: int) -> dict[int, Tensor]:
    """`count` good images of the data, or all where there are fewer, by their ascending sample numbers."""
    order = np.random.default_rng(seed).permutation(len(decoder.index))
    drawn: dict[int, Tensor] = {}
    for part in np.split(order, range(count, len(order), count)):
        drawn |= _by_number(decoder, np.sort(part))
        if len(drawn) >= count:
            break
    return dict(sorted(drawn.items())[:count])


def _by_number(decoder: Dataset, samples: NDArray[np.int64]) -> dict[int, Tensor]:
    return {number: torch.tensor(image) for number, image in decoder.images(samples)}
