"""The index of a data set: its shards, the position of every sample, and a checksum for every block.

`index.json` names the shards. The table beside it has three little-endian columns for all samples in order (`offset`
uint32 in units of 512 bytes, `length` uint32, `label` int32), then one CRC-32 (uint32) a block: at most 16 bytes a
sample. A block is a run of consecutive samples of one shard, from the first image's first byte to the last image's
last, that spans at most 512 KiB; a larger image is a block by itself. Blocks follow from the columns, so they are not
stored.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from distgan.bounds import MOST_RECORD_BYTES, MOST_UNPACKED_BYTES, parse_json
from distgan.data.contents import DATA_SET, contents_of
from distgan.data.shard_source import ShardSource, check_shard_name
from distgan.errors import UserError
from distgan.storage.storage import NotFoundError, Storage, UnavailableError
from distgan.storage.storage_errors import StorageError
from distgan.text import command

INDEX_NAME = "index.json"

TABLE_NAME = "index.table"

FORMAT = "distgan-index-1"

BLOCK_BYTES = 512 * 1024

TAR_UNIT = 512

# Fields of the header and its shards that say where the data are, or what is not among them.
_OUTSIDE_HASH = {"left_out", "source", "etag"}

_AGAIN = "make it again with `distgan data index`"

_ETAG = "[ -~]{1,200}"

REASON = "[ -~]{1,40}"  # for leaving out a file or a member


class Shard(BaseModel):
    """One tar file of the data set.

    Attributes:
        name: below the folder of the shards, with slashes where it lies in a folder of its own.
        etag: that its store gave it when it was indexed, if it lies elsewhere. Not part of the index's hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, AfterValidator(check_shard_name)]
    samples: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    etag: Annotated[str, Field(pattern=f"^{_ETAG}$")] | None = None


class Header(BaseModel):
    """The content of `index.json`.

    Attributes:
        image_size: pixels a side; None if the images have several sizes, or are not square.
        left_out: how many files or members were left out, by reason. Not part of the hash.
        source: URL of the shards (see `ShardSource`); None if they lie beside the index. Not part of the hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: str = Field(pattern=f"^{FORMAT}$")
    image_size: Annotated[int, Field(ge=1)] | None
    channels: Literal[1, 3]
    samples: int = Field(ge=1)
    classes: list[str]
    shards: list[Shard] = Field(min_length=1)
    table_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    left_out: dict[Annotated[str, Field(pattern=f"^{REASON}$")], Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, max_length=64
    )
    source: Annotated[str, Field(max_length=4000)] | None = None


@dataclass(frozen=True)
class Block:
    """Consecutive samples [first, stop) and the bytes [start, end) of a shard that hold their images."""

    number: int
    shard: int
    first: int
    stop: int
    start: int
    end: int
    crc32: int

    def holds(self, data: bytes) -> bool:
        """Whether `data` is exactly this block's bytes."""
        return len(data) == self.end - self.start and zlib.crc32(data) == self.crc32


@dataclass(frozen=True)
class Index:
    """A data set's samples in order, numbered from 0.

    Attributes:
        offsets: byte offset of each image in its shard, int64 (samples,).
        lengths: bytes of each image, int64 (samples,).
        labels: class of each sample, −1 for none, int64 (samples,).
    """

    header: Header
    offsets: NDArray[np.int64] = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    checksums: NDArray[np.uint32] = field(repr=False)

    def __len__(self) -> int:
        return self.header.samples

    @cached_property
    def hash(self) -> str:
        """Identifies the data: SHA-256 of the header, which contains the hashes of all the rest."""
        return hashlib.sha256(_header_json(self.header, whole=False)).hexdigest()

    def shard_folder(self, storage: Storage) -> Storage:
        """The folder of the shards; `storage` is that of the index."""
        return storage if self.header.source is None else ShardSource.parse(self.header.source).folder

    @property
    def is_sorted_by_label(self) -> bool:
        """Whether neighbors have the same label far more often than in a shuffle.

        In a shuffle of n samples the label changes about n (1 − Σp²) times, p being the labels' shares. Less than a
        quarter of that counts as sorted; data with fewer than 16 expected changes never does.
        """
        labels = self.labels[self.labels >= 0]
        if not len(labels):
            return False
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        expected = len(labels) * (1 - float(np.square(shares).sum()))
        return expected >= 16 and int(np.count_nonzero(np.diff(labels))) < expected / 4

    @cached_property
    def blocks(self) -> list[Block]:
        """All blocks in sample order."""
        return [
            Block(number, shard, first, stop, start, end, int(self.checksums[number]))
            for number, (shard, first, stop, start, end) in enumerate(self._spans)
        ]

    @cached_property
    def _spans(self) -> list[tuple[int, int, int, int, int]]:
        return block_spans([shard.samples for shard in self.header.shards], self.offsets, self.lengths)

    def _check_offsets(self, where: str) -> None:
        """Raises UserError unless images follow each other within their shards."""
        ends = self.offsets + self.lengths
        first = 0
        for shard in self.header.shards:
            stop = first + shard.samples
            starts_and_end = np.append(self.offsets[first:stop], shard.bytes)
            wrong = np.flatnonzero((self.lengths[first:stop] < 1) | (ends[first:stop] > starts_and_end[1:]))
            if len(wrong):
                raise UserError(
                    f"{where}: damaged: sample {first + wrong[0]} does not lie where {shard.name} can hold it; {_AGAIN}"
                )
            first = stop

    def _check_source(self, storage: Storage, where: str) -> None:
        """Raises UserError unless the shards' folder is a URL that could be opened."""
        try:
            self.shard_folder(storage)
        except UserError as error:
            raise UserError(f"{where}: damaged: source: {error}") from None

    def elsewhere(self, source: str, etags: Sequence[str | None]) -> Index:
        """This index for another folder than that of the shards, whose URL is `source` (see `ShardSource`)."""
        shards = [
            shard.model_copy(update={"etag": etag if etag is not None and re.fullmatch(_ETAG, etag) else None})
            for shard, etag in zip(self.header.shards, etags, strict=True)
        ]
        header = self.header.model_copy(update={"source": source, "shards": shards})
        return Index(header, self.offsets, self.lengths, self.labels, self.checksums)

    def header_bytes(self) -> bytes:
        return _header_json(self.header)

    def table_bytes(self) -> bytes:
        return pack_table(self.offsets, self.lengths, self.labels, self.checksums)

    def save(self, storage: Storage) -> None:
        """Writes the table, then the header, so that a reader finds both or neither."""
        storage.write_bytes(TABLE_NAME, self.table_bytes())
        storage.write_bytes(INDEX_NAME, self.header_bytes())

    @classmethod
    def load(cls, storage: Storage) -> Index:
        """Reads and checks an index. Raises UserError if it is missing, damaged or of another format."""
        where = f"{storage.url}/{INDEX_NAME}"
        try:
            text = storage.read_bytes(INDEX_NAME, most=MOST_RECORD_BYTES)
        except StorageError as error:
            found = None if isinstance(error, UnavailableError) else contents_of(storage.url)
            if found is not None and found.what != DATA_SET:  # else its index cannot be read
                raise UserError(f"{storage.url}: not a data set but {found.what}; {found.advice}") from None
            if not isinstance(error, NotFoundError):
                raise
            raise UserError(
                f"{where}: no index; name the folder that `distgan data pack` or `render` wrote, or make one "
                f"for WebDataset shards with `{command('data', 'index', storage.url)}`"
            ) from None
        try:
            header = Header.model_validate(parse_json(text))
        except ValueError as error:
            reason = f"content: {error}"
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False)[0]
                reason = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
            raise UserError(
                f"{where}: damaged, or not an index of distgan: {reason:.200}; "
                f"make it again with `{command('data', 'index', storage.url)}`"
            ) from None
        if sum(shard.samples for shard in header.shards) != header.samples:
            raise UserError(f"{where}: damaged: the shards' samples do not add up to {header.samples}; {_AGAIN}")
        # At most four numbers a sample; one byte more shows a table of another index.
        table = storage.read_start(TABLE_NAME, min(16 * header.samples, MOST_UNPACKED_BYTES) + 1)
        if hashlib.sha256(table).hexdigest() != header.table_sha256:
            raise UserError(
                f"{storage.url}/{TABLE_NAME}: does not belong to {INDEX_NAME} (its SHA-256 differs); "
                f"make both again with `{index_command(header, storage)}`"
            )
        index = cls(header, *_unpack_table(table, header.samples, where))
        index._check_offsets(where)
        index._check_source(storage, where)
        if len(index._spans) != len(index.checksums):
            raise UserError(
                f"{where}: damaged: {len(index.checksums)} checksums for {len(index._spans)} blocks; {_AGAIN}"
            )
        return index


def index_command(header: Header, storage: Storage) -> str:
    """The command that makes the index in the folder `storage` again."""
    if header.source is None:
        return command("data", "index", storage.url)
    return command("data", "index", header.source, "--index", storage.url)


def _header_json(header: Header, *, whole: bool = True) -> bytes:
    """The header as JSON, without fields that are empty; unless `whole`, without those that the hash leaves out."""
    content: dict[str, Any] = header.model_dump()
    for part in (content, *content["shards"]):
        for name in _OUTSIDE_HASH & part.keys():
            if not (whole and part[name]):
                del part[name]
    return json.dumps(content, indent=1).encode() + b"\n"


def block_spans(
    shard_samples: list[int], offsets: NDArray[np.int64], lengths: NDArray[np.int64]
) -> list[tuple[int, int, int, int, int]]:
    """(shard, first sample, stop sample, start byte, end byte) of every block."""
    ends = offsets + lengths
    spans = []
    base = 0
    for shard, count in enumerate(shard_samples):
        first, stop_of_shard = base, base + count
        while first < stop_of_shard:
            limit = offsets[first] + BLOCK_BYTES
            stop = first + max(1, int(np.searchsorted(ends[first:stop_of_shard], limit, side="right")))
            spans.append((shard, first, stop, int(offsets[first]), int(ends[stop - 1])))
            first = stop
        base = stop_of_shard
    return spans


def pack_table(
    offsets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    labels: NDArray[np.int64],
    checksums: NDArray[np.uint32],
) -> bytes:
    """The columns as bytes."""
    return b"".join(
        [
            (offsets // TAR_UNIT).astype("<u4").tobytes(),
            lengths.astype("<u4").tobytes(),
            labels.astype("<i4").tobytes(),
            checksums.astype("<u4").tobytes(),
        ]
    )


def _unpack_table(
    table: bytes, samples: int, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
    if len(table) < 12 * samples or len(table) % 4:
        raise UserError(f"{where}: damaged: its table has {len(table)} bytes for {samples} samples; {_AGAIN}")
    offsets, lengths = np.frombuffer(table, "<u4", 2 * samples).astype(np.int64).reshape(2, samples)
    labels = np.frombuffer(table, "<i4", samples, 8 * samples).astype(np.int64)
    checksums = np.frombuffer(table, "<u4", -1, 12 * samples).astype(np.uint32)
    return offsets * TAR_UNIT, lengths, labels, checksums
