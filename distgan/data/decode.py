"""From the bytes of a block to images as a run wants them: training and evaluation both decode here."""

from __future__ import annotations

import tarfile
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from distgan.config.schema import Resize
from distgan.data.blocks import BlockReader
from distgan.data.images import decode_image
from distgan.data.index import TAR_UNIT, Block, Index
from distgan.errors import UserError


class SampleDecoder:
    """Decodes the samples of a data set to uint8 (channels, image_size, image_size)."""

    def __init__(
        self, index: Index, reader: BlockReader, *, image_size: int, channels: int, resize: Resize = "none"
    ) -> None:
        self.index, self.reader = index, reader
        self.shape = (channels, image_size, image_size)
        self._resize = resize
        self._block_starts = [block.first for block in index.blocks]

    def block_of(self, sample: int) -> Block:
        """The block that a sample lies in."""
        return self.index.blocks[bisect_right(self._block_starts, sample) - 1]

    def decode(self, sample: int, block: Block, data: bytes) -> NDArray[np.uint8]:
        """The image of a sample of `block`, whose bytes are `data`.

        Raises UserError, naming shard and sample, where it cannot be used.
        """
        start = int(self.index.offsets[sample]) - block.start
        image = data[start : start + int(self.index.lengths[sample])]
        try:
            return decode_image(image, self.shape[1], self.shape[0], self._resize)
        except ValueError as error:
            raise UserError(f"{self._name(sample, block)} cannot be used: {error}; pack the data again") from None

    def _name(self, sample: int, block: Block) -> str:
        """Shard, number, place and, where the tar header before it can be read, the name of its file in the tar."""
        offset = int(self.index.offsets[sample])
        place = f"{self.index.header.shards[block.shard].name}: sample {sample} at byte {offset}"
        try:
            header = self.reader.bytes_before(block.shard, offset, TAR_UNIT)
            return f"{place} ({tarfile.TarInfo.frombuf(header, 'utf-8', 'replace').name})"
        except (UserError, tarfile.TarError):
            return place
