"""Packs a source's images into WebDataset shards with an index, and continues where it was interrupted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distgan.data.encode import Encoded, EncodedImage, Encoder, PackOptions, encoded_samples
from distgan.data.files import BAD
from distgan.data.index import INDEX_NAME, TABLE_NAME, Index
from distgan.data.pack_record import (
    Done,
    PackRecord,
    check_same_pack,
    logged,
    read_record,
    verified_shards,
)
from distgan.data.scan import ScannedShard, assemble_index
from distgan.data.shard_writer import RECORD_NAME, add_shards, check_place, claimed_folder, removed_on_error
from distgan.data.sources.base import Source
from distgan.errors import UserError
from distgan.storage.lease import Lease
from distgan.storage.storage import Storage

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples

__all__ = ["PackOptions", "pack"]


def pack(
    source: Source,
    storage: Storage,
    options: PackOptions,
    on_progress: Callable[[int], None] | None = None,
    on_skip: Callable[[str], None] | None = None,
    on_recovered: Callable[[int], None] | None = None,
    on_stretched: Callable[[int], None] | None = None,
    on_kept: Callable[[int], None] | None = None,
    encoder: Encoder = encoded_samples,
) -> Index:
    """Writes shards, then the index, into the storage; returns the index.

    A sample is `KEY.png|jpg|webp` and, where it has a label, `KEY.cls`. The same source and options give the same
    bytes. A failed, interrupted or killed call leaves its finished shards behind, and a record of them; the same call
    verifies these and goes on.

    Args:
        on_progress: receives the number of samples done so far.
        on_skip: receives the reason for each sample that this call leaves out.
        on_recovered: receives how many more images are JPEGs that libjpeg only warns of.
        on_stretched: receives how many more images, clearly not square, were stretched to a square.
        on_kept: receives how many more images were stored as they are (`PackOptions.encoding` "keep").
        encoder: where images are encoded; by default in `options.processes` processes.

    Raises:
        UserError: a data set, other shards, an unfinished pack of another source or with other options, or another
            process at work in the storage; a bad image, unless `options.bad` is "skip".
    """
    order: list[int] = np.random.default_rng([options.seed, len(source)]).permutation(len(source)).tolist()
    with claimed_folder(storage) as lease:
        record, scanned = _begun(lease, PackRecord.of(source, options), source, options, order, on_progress)
        images = _Images(options.bad, record.done, on_progress, on_skip, on_recovered, on_stretched, on_kept)
        with (
            removed_on_error(lease) as written,
            logged(record, storage.url),
            closing(encoder(source, options, order[record.done.stop :])) as encoded,
        ):

            def on_shard(shard: ScannedShard) -> None:
                if record.shards:
                    written.clear()  # it may stay without being recorded
                else:
                    written.append(RECORD_NAME)
                record.add(images.done(shard.shard.sha256), lease.storage)
                written.clear()

            add_shards(lease, images.good(encoded), options.shard_bytes, scanned, written.append, on_shard)
            if not scanned:
                raise UserError(f"{storage.url}: nothing to pack: none of the {len(source):,} images can be used")
            left_out = Counter(source.left_out) + Counter({BAD: images.bad})
            index = assemble_index(scanned, list(source.classes), options.channels, left_out)
            written += [TABLE_NAME, INDEX_NAME]
            index.save(lease.storage)
        lease.storage.delete(RECORD_NAME)
    return index


def _begun(
    lease: Lease,
    asked: PackRecord,
    source: Source,
    options: PackOptions,
    order: list[int],
    on_progress: Callable[[int], None] | None,
) -> tuple[PackRecord, list[ScannedShard]]:
    """The record of the pack, and its shards that are there and whole. Other ones that it left are deleted."""
    storage = lease.storage
    if INDEX_NAME in storage.list():
        storage.delete(RECORD_NAME)  # a pack that was killed when all was done
    found = read_record(storage)
    if found is None:
        check_place(lease)
        return asked, []
    check_same_pack(found, asked, options, len(order), storage.url)
    scanned = verified_shards(found, storage, source, options, order, on_progress)
    check_place(lease, kept=len(scanned), recorded=len(found.shards))
    del found.shards[len(scanned) :]
    return found, scanned


@dataclass
class _Images:
    """Passes on the images that can be used, and counts them from what is `begun`.

    Attributes:
        bad: images that were left out.
    """

    rule: BadSamples
    begun: Done
    on_progress: Callable[[int], None] | None
    on_skip: Callable[[str], None] | None
    on_recovered: Callable[[int], None] | None
    on_stretched: Callable[[int], None] | None
    on_kept: Callable[[int], None] | None

    def __post_init__(self) -> None:
        begun = self.begun
        self.bad = self._bad = begun.bad  # the latter: before the last good image
        self._stop, self._recovered, self._stretched, self._kept = begun.stop, 0, 0, 0
        self._count(begun.recovered, begun.stretched, begun.kept)

    def done(self, sha256: str) -> Done:
        """What is done at the end of a shard, whose last image is the last one that was passed on."""
        return Done(
            stop=self._stop, bad=self._bad, recovered=self._recovered, stretched=self._stretched, kept=self._kept,
            sha256=sha256,
        )  # fmt: skip

    def good(self, encoded: Iterator[Encoded]) -> Iterator[EncodedImage]:
        """The images that can be used. Raises UserError for another one if the rule is "error"."""
        for stop, sample in enumerate(encoded, self._stop + 1):
            if not isinstance(sample, UserError):
                self._stop, self._bad = stop, self.bad
                self._count(sample.recovered, sample.stretched, sample.kept)
                yield sample
            elif self.rule == "skip":
                self.bad += 1
                if self.on_skip is not None:
                    self.on_skip(str(sample))
            else:
                raise UserError(f"{sample}; --bad skip leaves such images out")
            if self.on_progress is not None:
                self.on_progress(stop)

    def _count(self, recovered: int, stretched: int, kept: int) -> None:
        self._recovered, self._stretched, self._kept = (
            self._recovered + recovered, self._stretched + stretched, self._kept + kept
        )  # fmt: skip
        for more, on_more in (
            (recovered, self.on_recovered), (stretched, self.on_stretched), (kept, self.on_kept),
        ):  # fmt: skip
            if more and on_more is not None:
                on_more(int(more))
