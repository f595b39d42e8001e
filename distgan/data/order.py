"""The order of samples: a pure function of (index, seed, streams), independent of the number of workers.

The samples are split over streams. A stream owns a contiguous range of samples. Its block order is drawn from (seed,
stream number, epoch); samples are shuffled within windows of a few blocks; epochs follow each other without end. A
batch takes equally many samples from every stream, so the position of a run is one integer: the batches consumed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from distgan.data.index import Index
from distgan.errors import UserError


@dataclass(frozen=True)
class BlockSlice:
    """The samples [first, stop) of a block that belong to one stream."""

    block: int
    first: int
    stop: int


@dataclass(frozen=True)
class ShuffleWindow:
    """A few blocks' worth of a stream, shuffled together.

    Attributes:
        start: the window's first position in the stream's epoch, in samples.
        samples: the sample numbers in their shuffled order.
    """

    slices: tuple[BlockSlice, ...]
    start: int
    samples: NDArray[np.int64]


class Stream:
    """One stream of samples, endless and addressable at any position."""

    def __init__(self, index: Index, seed: int, number: int, num_streams: int, window_blocks: int) -> None:
        count = len(index)
        self.first = number * count // num_streams
        self.stop = (number + 1) * count // num_streams
        self._seed, self._number, self._window_blocks = seed, number, window_blocks
        first = bisect_right(index.blocks, self.first, key=lambda block: block.stop)
        last = bisect_left(index.blocks, self.stop, key=lambda block: block.first)
        self._slices = [
            BlockSlice(block.number, max(block.first, self.first), min(block.stop, self.stop))
            for block in index.blocks[first:last]
        ]
        # Consecutive batches share windows; a batch spans two of them at most.
        self.window = lru_cache(maxsize=4)(self._window)
        self._epoch_layout = lru_cache(maxsize=2)(self._layout)

    def __len__(self) -> int:
        """Samples in an epoch of this stream."""
        return self.stop - self.first

    @property
    def windows_per_epoch(self) -> int:
        return -(-len(self._slices) // self._window_blocks)

    def locate(self, position: int) -> tuple[int, int, int]:
        """(epoch, window, offset in the window) of the sample at `position`, counted from the start of the run."""
        epoch, place = divmod(position, len(self))
        _, starts = self._epoch_layout(epoch)
        window = bisect_right(starts, place) - 1
        return epoch, window, place - starts[window]

    def samples(self, position: int, count: int) -> NDArray[np.int64]:
        """The sample numbers at positions [position, position + count)."""
        parts = []
        while count > 0:
            epoch, number, place = self.locate(position)
            part = self.window(epoch, number).samples[place : place + count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _layout(self, epoch: int) -> tuple[NDArray[np.int64], list[int]]:
        """The order of the epoch's slices, and the start of each window."""
        order = np.random.default_rng([self._seed, self._number, epoch]).permutation(len(self._slices))
        sizes = np.array([self._slices[part].stop - self._slices[part].first for part in order])
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])[:: self._window_blocks]
        return order, starts.tolist()

    def _window(self, epoch: int, number: int) -> ShuffleWindow:
        order, starts = self._epoch_layout(epoch)
        chosen = order[number * self._window_blocks : (number + 1) * self._window_blocks]
        slices = tuple(self._slices[part] for part in chosen)
        samples = np.concatenate([np.arange(part.first, part.stop) for part in slices])
        rng = np.random.default_rng([self._seed, self._number, epoch, number + 1])
        return ShuffleWindow(slices, starts[number], rng.permutation(samples))


class Order:
    """All streams of a data set, and the samples of each group of each batch.

    Raises UserError if the data set is too small for the number of streams.
    """

    def __init__(self, index: Index, seed: int, num_streams: int, window_blocks: int) -> None:
        if len(index) < num_streams:
            raise UserError(
                f"data.streams={num_streams} is more than the data set's {len(index)} samples; set fewer, or pack more"
            )
        self.streams = [Stream(index, seed, number, num_streams, window_blocks) for number in range(num_streams)]

    def group_streams(self, group: int, num_groups: int) -> range:
        """The numbers of the streams that a group reads; `num_groups` divides the number of streams.

        They are spread evenly over the data, so that a group has many classes even if images are sorted by class.
        """
        return range(group, len(self.streams), num_groups)

    def group_samples(self, batch: int, group: int, num_groups: int, batch_size: int) -> NDArray[np.int64]:
        """Sample numbers of one group of one batch, shape (batch_size / num_groups,)."""
        share = batch_size // len(self.streams)
        numbers = self.group_streams(group, num_groups)
        return np.concatenate([self.streams[number].samples(batch * share, share) for number in numbers])
