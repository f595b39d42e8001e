"""Tests whether, and how fast, a process reads a data set and uses a storage URL."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress

import botocore.session
from botocore.exceptions import BotoCoreError

from distgan.data.blocks import BlockReader
from distgan.data.images import decode_image
from distgan.data.index import Block, Index
from distgan.doctor.facts import DataRead, StorageUse
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.storage.urls import S3_PROTOCOLS
from distgan.text import command

READ_BYTES = 16 * 2**20

_MOST_SHARDS = 8

_MOST_IMAGES = 2000


def read_data(url: str, most_bytes: int = READ_BYTES) -> DataRead:
    """Reads and checks blocks of several shards, without the cache, and decodes their images on one core.

    Reads at least one block, else up to `most_bytes`.
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
    """The first blocks of the first shards, in turn."""
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
    """How many images were decoded, and the seconds."""
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
    """Shard, number and bytes of up to `_MOST_IMAGES` samples."""
    left = _MOST_IMAGES
    for block, content in zip(blocks, contents, strict=True):
        for sample in range(block.first, min(block.stop, block.first + left)):
            start = int(index.offsets[sample]) - block.start
            yield block.shard, sample, content[start : start + int(index.lengths[sample])]
        left -= min(left, block.stop - block.first)


SIZE = 8 * 2**20

MARK = "mark"

_SMALL = 1024

_READS = 5


def use_storage(url: str, name: str, marked: bool = False, size: int = SIZE) -> StorageUse:
    """Writes an object `name` of `size` bytes and a small one, reads and compares them, and removes both.

    `marked`: whether the driver has written the object `MARK` beside them.
    """
    large, small = f"{name}-large", f"{name}-small"
    content = os.urandom(size)
    try:
        storage = Storage.open(url)
        storage.prepare()
        try:
            storage.write_bytes(small, content[:_SMALL])
            latency = statistics.median(_timed_read(storage, small, content[:_SMALL]) for _ in range(_READS))
            began = time.perf_counter()
            storage.write_bytes(large, content)
            written = time.perf_counter() - began
            read = _timed_read(storage, large, content)
            sees_mark = storage.exists(MARK) if marked else None
        except UserError:
            with suppress(UserError):
                _remove(storage, small, large)
            raise
        _remove(storage, small, large)
    except UserError as error:
        return StorageUse(problem=str(error))
    return StorageUse(None, size, written, read, latency, sees_mark)


def credentials_source(url: str) -> str | None:
    """The source of the AWS credentials, as botocore calls it: `env`, `shared-credentials-file`, `iam-role`, …

    None without credentials, and for a URL that is not S3's.
    """
    if Storage.open(url).protocol not in S3_PROTOCOLS:
        return None
    try:
        found = botocore.session.Session().get_credentials()
    except (BotoCoreError, OSError):
        return None
    return None if found is None else str(found.method)


def _timed_read(storage: Storage, name: str, written: bytes) -> float:
    began = time.perf_counter()
    found = storage.read_bytes(name)
    seconds = time.perf_counter() - began
    if found != written:
        raise UserError(
            f"{storage.url}/{name}: the bytes read are not the bytes written; a proxy between here and the store must "
            f"not change or keep them"
        )
    return seconds


def _remove(storage: Storage, *names: str) -> None:
    """Removes the objects, and a local folder that is empty then."""
    for name in names:
        storage.delete(name)
    if storage.local_path is not None:
        with suppress(OSError):
            storage.local_path.rmdir()
