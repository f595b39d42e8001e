"""Decodes the samples of a data set, for training and evaluation."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distgan.config.schema import DataConfig
from distgan.data.blocks import BlockCache, BlockReader
from distgan.data.images import decode_pixels
from distgan.data.index import TAR_UNIT, Block, Index
from distgan.errors import UserError
from distgan.storage.retry import Retry
from distgan.storage.storage import Storage
from distgan.text import command


class Dataset:
    """Decodes the samples of a data set to uint8 images of one shape, (channels, height, width), height = width.

    A bad sample is one whose bytes match the index but are no image, or an image of another size where `resize` is
    "none". Its substitute depends on the data alone, so that every worker and every resume use the same one.
    """

    def __init__(self, index: Index, reader: BlockReader, shape: tuple[int, int, int], config: DataConfig) -> None:
        self.index, self.reader, self.shape = index, reader, shape
        self._resize, self._bad_samples = config.resize, config.bad_samples
        self._block_starts = np.array([block.first for block in index.blocks])

    @classmethod
    def open(cls, config: DataConfig, shape: tuple[int, int, int], retry: Retry | None = None) -> Dataset:
        """The data set at `config.url`, read through its cache. Raises UserError if it is missing or damaged.

        By default unavailable storage is waited for (`storage.retry`).
        """
        assert config.url is not None
        storage, retry = Storage.open(config.url), retry or Retry()
        index = retry(lambda: Index.load(storage))
        cache = None
        if config.cache_dir is not None and not index.shard_folder(storage).is_local:
            cache = BlockCache(Path(config.cache_dir), config.cache_mb * 2**20)
        return cls(index, BlockReader(storage, index, cache, retry), shape, config)

    @property
    def images_key(self) -> tuple[object, ...]:
        """Equal for data sets that have the same images."""
        return self.index.hash, self.shape, self._resize, self._bad_samples

    def block_of(self, sample: int) -> Block:
        """The block that contains a sample."""
        return self.index.blocks[int(np.searchsorted(self._block_starts, sample, side="right")) - 1]

    def block_numbers(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the blocks that contain the samples."""
        numbers: NDArray[np.int64] = np.searchsorted(self._block_starts, samples, side="right") - 1
        return numbers

    def images(self, samples: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The given samples (ascending numbers) and their images; each block is read once.

        Bad samples are left out if `data.bad_samples` is "skip", else they raise UserError with shard and sample.
        """
        block: Block | None = None
        data = b""
        for sample in samples.tolist():
            if block is None or sample >= block.stop:
                block = self.block_of(sample)
                (data,) = self.reader.read([block])
            pixels = self.decode(sample, block, data)
            if pixels is not None:
                yield sample, np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def decode_or_next(self, sample: int, block: Block, data: bytes, out: NDArray[np.uint8]) -> int:
        """Decodes a sample of `block` into `out`, (H, W, C); instead of a bad one the block's next good one.

        The block's first sample follows its last one. Returns the number of the decoded sample.

        Raises UserError, with shard and sample, for a bad sample if `data.bad_samples` is "error", and for a block
        without a good one.
        """
        size = block.stop - block.first
        for step in range(size):
            candidate = block.first + (sample - block.first + step) % size
            if self.decode(candidate, block, data, out) is not None:
                return candidate
        raise UserError(
            f"{self._shard(block)}: none of the samples {block.first} to {block.stop - 1} (bytes {block.start} to "
            f"{block.end}) can be used, so there is no substitute; pack the data again"
        )

    def decode(
        self, sample: int, block: Block, data: bytes, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """The image of a sample of `block`, whose bytes are `data`: uint8 (H, W, C), in `out` if given.

        A bad sample gives None if `data.bad_samples` is "skip", else UserError with shard and sample.
        """
        start = int(self.index.offsets[sample]) - block.start
        image = data[start : start + int(self.index.lengths[sample])]
        try:
            return decode_pixels(image, self.shape[1], self.shape[0], self._resize, out)
        except ValueError as error:
            if self._bad_samples == "skip":
                return None
            raise UserError(
                f"{self._name(sample, block)} cannot be used: {error}; pack the data again, or train without such "
                f"samples with data.bad_samples=skip"
            ) from None

    def _shard(self, block: Block) -> str:
        return self.index.header.shards[block.shard].name

    def _name(self, sample: int, block: Block) -> str:
        """Shard, number, byte and, if its tar header can be read, file name of a sample."""
        offset = int(self.index.offsets[sample])
        place = f"{self._shard(block)}: sample {sample} at byte {offset}"
        if offset < TAR_UNIT:
            return place
        try:
            header = self.reader.bytes_before(block.shard, offset, TAR_UNIT)
            return f"{place} ({tarfile.TarInfo.frombuf(header, 'utf-8', 'replace').name})"
        except (UserError, tarfile.TarError):
            return place


def check_bad_samples(count: int, config: DataConfig) -> None:
    """Raises UserError for more bad samples than `data.max_bad_samples`."""
    if count > config.max_bad_samples:
        raise UserError(
            f"{config.url}: {count} samples so far cannot be used, more than data.max_bad_samples="
            f"{config.max_bad_samples}; `{command('data', 'verify', str(config.url))}` names them: pack the data "
            f"again without them, or raise data.max_bad_samples"
        )
