"""Some images of a data set, to look at: of each label a few, from few blocks, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.errors import UserError

_WHITE = 255

_READ_AT_ONCE = 16  # blocks

# Images of a label come from at least so many blocks, where it has them: neighbors may look alike.
_BLOCKS = 8


def choose_samples(index: Index, label: int | None, count: int, seed: int) -> NDArray[np.int64]:
    """Numbers of `count` samples of a label, −1 for those without one, or of all for None; fewer where there are fewer.

    All labels prefer the same blocks, so that few have to be read.
    """
    found = np.arange(len(index)) if label is None else np.flatnonzero(index.labels == label)
    blocks = np.searchsorted([block.first for block in index.blocks], found, side="right") - 1
    ranks = np.random.default_rng(seed).permutation(len(index.blocks))[blocks]
    order = np.lexsort((np.random.default_rng([seed, 1]).permutation(len(found)), ranks))
    ranks = ranks[order]
    place_in_block = np.arange(len(order)) - np.searchsorted(ranks, ranks)
    rounds = np.argsort(place_in_block // -(-count // _BLOCKS), kind="stable")
    return found[order[rounds[:count]]]


def read_samples(
    dataset: Dataset, samples: Sequence[NDArray[np.int64]], count: int, reader: BlockReader | None = None
) -> tuple[NDArray[np.uint8], int]:
    """The images of lists of samples, and how many cannot be read.

    Args:
        count: places of each list; those without a sample, or with one that cannot be read, stay white.
        reader: reads the blocks; by default the data set's.

    Returns: uint8 (lists, count, C, H, W). Raises UserError where blocks cannot be read.
    """
    images = np.full((len(samples), count, *dataset.shape), _WHITE, np.uint8)
    places = {int(sample): (row, column) for row, some in enumerate(samples) for column, sample in enumerate(some)}
    by_block: dict[int, list[int]] = {}
    for sample in sorted(places):
        by_block.setdefault(dataset.block_of(sample).number, []).append(sample)
    bad = 0
    numbers = list(by_block)
    for first in range(0, len(numbers), _READ_AT_ONCE):
        blocks = [dataset.index.blocks[number] for number in numbers[first : first + _READ_AT_ONCE]]
        for block, data in zip(blocks, (reader or dataset.reader).read(blocks), strict=True):
            for sample in by_block[block.number]:
                try:
                    image = dataset.decode(sample, block, data)
                except UserError:
                    image = None
                if image is None:
                    bad += 1
                else:
                    images[places[sample]] = image.transpose(2, 0, 1)
    return images, bad
