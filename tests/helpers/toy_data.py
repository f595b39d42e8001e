"""Small data sets for the tests of the data room."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from distgan.config.schema import BadSamples, Config, DataConfig, Resize
from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.data.index import FORMAT, Header, Index, Shard, block_spans, pack_table
from distgan.data.order import Order
from distgan.data.sources.base import Source
from distgan.storage.storage import Storage

if TYPE_CHECKING:  # torch, which a process that a test starts need not load
    from distgan.data.stream import BatchStream, Group


@dataclass(frozen=True)
class NumberedSource(Source):
    """Noise images whose first pixels spell the sample's number, and labels number % classes."""

    count: int
    size: int = 16
    channels: int = 1
    num_classes: int = 3

    @property
    def classes(self) -> list[str]:
        return [f"kind {number}" for number in range(self.num_classes)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        shape = (self.size, self.size, self.channels)
        pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        pixels[0, 0, 0], pixels[0, 1, 0] = divmod(number, 256)
        return pixels, number % self.num_classes if self.num_classes else -1

    def name(self, number: int) -> str:
        return f"sample {number}"


def numbers_of(group: Group) -> list[int]:
    """The sample numbers that a group's images spell."""
    pixels = group.images[:, 0, 0, :2].tolist()
    return [high * 256 + low for high, low in pixels]


def pack_numbered(folder: Path | str, count: int, *, size: int = 16, channels: int = 1, shard_kb: int = 64) -> Index:
    """Packs a `NumberedSource` at `folder` in this process; about 0.5 KiB a sample at size 16."""
    from distgan.data.pack import PackOptions, pack

    options = PackOptions(size, channels, shard_bytes=shard_kb * 1024, processes=1)
    return pack(NumberedSource(count, size, channels), Storage.open(str(folder)), options)


def made_up_index(shard_lengths: Sequence[Sequence[int]], labels: Sequence[int] | None = None) -> Index:
    """The index of shards that do not exist, with images of the given lengths in bytes."""
    offsets, lengths, sizes = [], [], []
    for shard in shard_lengths:
        place = 512
        for length in shard:
            offsets.append(place)
            lengths.append(length)
            place += -(-length // 512) * 512 + 512
        sizes.append(place)
    columns = np.array(offsets, np.int64), np.array(lengths, np.int64)
    samples = len(lengths)
    spans = block_spans([len(shard) for shard in shard_lengths], *columns)
    table = *columns, np.array(labels or [-1] * samples, np.int64), np.arange(len(spans), dtype=np.uint32)
    header = Header(
        format=FORMAT,
        image_size=16,
        channels=1,
        samples=samples,
        classes=[],
        shards=[
            Shard(name=f"shard-{number}.tar", samples=len(shard), bytes=sizes[number], sha256="0" * 64)
            for number, shard in enumerate(shard_lengths)
        ],
        table_sha256=hashlib.sha256(pack_table(*table)).hexdigest(),
    )
    return Index(header, *table)


def open_stream(
    storage: Storage,
    *,
    reader: BlockReader | None = None,
    groups: range = range(2),
    num_groups: int = 2,
    streams: int = 4,
    window_blocks: int = 2,
    batch_size: int = 16,
    start_batch: int = 0,
    memory_bytes: int = 0,
    prefetch_batches: int = 2,
    decode_threads: int = 1,
    seed: int = 0,
    image_size: Literal[16, 32, 64] = 16,
    resize: Resize = "none",
    bad_samples: BadSamples = "error",
) -> BatchStream:
    """A stream of batches with small defaults."""
    from distgan.data.stream import BatchStream

    index = Index.load(storage)
    config = Config(
        image_size=image_size,
        channels=index.header.channels,
        data=DataConfig(resize=resize, bad_samples=bad_samples),
    )
    return BatchStream(
        Dataset(index, reader or BlockReader(storage, index), config.image_shape, config.data),
        Order(index, seed, streams, window_blocks),
        groups=groups,
        num_groups=num_groups,
        batch_size=batch_size,
        start_batch=start_batch,
        memory_bytes=memory_bytes,
        prefetch_batches=prefetch_batches,
        decode_threads=decode_threads,
    )
