"""How a preset's images are stored, measured by packing and decoding some."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from distgan.config.schema import Config
from distgan.data.bricks.render import BrickSource
from distgan.data.dataset import Dataset
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.base import Source
from distgan.storage.storage import Storage

_PACKED = 256


@dataclass(frozen=True)
class Stored:
    """How packed images are stored, and what one costs to read.

    Attributes:
        image_bytes: with its part of the shard's frame.
        decode_s: on one core.
    """

    image_bytes: float
    decode_s: float


class NoiseSource(Source):
    """Images that no encoding makes smaller: no photograph is stored larger."""

    def __init__(self, count: int, size: int, channels: int) -> None:
        self._count, self._shape = count, (size, size, channels)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return np.random.default_rng(number).integers(0, 256, self._shape, np.uint8), -1

    def name(self, number: int) -> str:
        return f"noise {number}"


def measure_stored(config: Config, bricks: bool) -> Stored:
    """Packs rendered bricks, else noise, as `distgan data pack` does, and decodes them on one thread."""
    size, channels = config.image_size, config.channels
    source: Source = BrickSource(0, _PACKED, size, channels) if bricks else NoiseSource(_PACKED, size, channels)
    with TemporaryDirectory() as folder:
        storage = Storage.open(folder)
        index = pack(source, storage, PackOptions(size, channels, processes=1))
        total = sum(shard.bytes for shard in index.header.shards)
        data = config.data.model_copy(update={"url": storage.url})
        dataset = Dataset.open(data, config.image_shape)
        blocks = list(index.blocks)
        read = dict(zip([block.number for block in blocks], dataset.reader.read(blocks), strict=True))
        seconds, out = [], np.empty((size, size, channels), np.uint8)
        for _ in range(3):
            begin = time.perf_counter()
            for sample in range(_PACKED):
                block = dataset.block_of(sample)
                dataset.decode_or_next(sample, block, read[block.number], out)
            seconds.append((time.perf_counter() - begin) / _PACKED)
    return Stored(total / _PACKED, statistics.median(seconds))
