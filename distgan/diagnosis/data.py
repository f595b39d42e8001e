"""Whether a process can read a data set, and how fast."""

from __future__ import annotations

import time
from collections.abc import Iterator

from distgan.config.commands import command
from distgan.data.blocks import BlockReader
from distgan.data.images import decode_image
from distgan.data.index import Block, Index
from distgan.data.storage import Storage
from distgan.diagnosis.facts import DataRead
from distgan.errors import UserError

READ_BYTES = 16 * 2**20
_MOST_SHARDS = 8
_MOST_IMAGES = 2000


def read_data(url: str, most_bytes: int = READ_BYTES) -> DataRead:
    """Reads blocks of several shards, checked and past every cache of ours, and decodes images of them on one core.

    At least one block, else up to `most_bytes`.
    """
    try:
        storage = Storage.open(url)
        index = Index.load(storage)
        blocks = _some_blocks(index, most_bytes)
        began = time.perf_counter()
        contents = BlockReader(storage, index).read(blocks)
        read = time.perf_counter() - began
        images, decoding = _decode(url, index, blocks, contents)
    except UserError as error:
        return DataRead(problem=str(error))
    return DataRead(None, index.hash, sum(map(len, contents)), read, images, decoding)


def _some_blocks(index: Index, most_bytes: int) -> list[Block]:
    """The first ones of the first shards, in turn."""
    by_shard: dict[int, list[Block]] = {}
    for block in index.blocks:
        if block.shard >= _MOST_SHARDS:
            break
        by_shard.setdefault(block.shard, []).append(block)
    chosen: list[Block] = []
    for depth in range(max(map(len, by_shard.values()))):
        for blocks in by_shard.values():
            if depth < len(blocks):
                block = blocks[depth]
                if chosen and sum(each.end - each.start for each in chosen) + block.end - block.start > most_bytes:
                    return chosen
                chosen.append(block)
    return chosen


def _decode(url: str, index: Index, blocks: list[Block], contents: list[bytes]) -> tuple[int, float]:
    """How many images were decoded, and in how many seconds."""
    count = 0
    began = time.perf_counter()
    for shard, sample, image in _images(index, blocks, contents):
        try:
            decode_image(image, index.header.image_size, index.header.channels)
        except ValueError as error:
            raise UserError(
                f"{url}/{index.header.shards[shard].name}: sample {sample} cannot be decoded: {error}; "
                f"`{command('data', 'verify', url)}` names all such samples"
            ) from None
        count += 1
    return count, time.perf_counter() - began


def _images(index: Index, blocks: list[Block], contents: list[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Shard, number and bytes of up to so many samples."""
    left = _MOST_IMAGES
    for block, content in zip(blocks, contents, strict=True):
        for sample in range(block.first, min(block.stop, block.first + left)):
            start = int(index.offsets[sample]) - block.start
            yield block.shard, sample, content[start : start + int(index.lengths[sample])]
        left -= min(left, block.stop - block.first)
