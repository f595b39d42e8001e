"""Packs a source's images into WebDataset shards with an index."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import webdataset as wds

from distgan.data.files import BAD
from distgan.data.images import WHITE, Colour, Encoding, Fit, encode_image, fit_image, recovered_jpegs
from distgan.data.index import INDEX_NAME, TABLE_NAME, Index
from distgan.data.scan import ScannedShard, assemble_index, scan_shard
from distgan.data.sources.base import Source
from distgan.errors import UserError
from distgan.storage.lease import Lease, claimed
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import Storage, translate_errors

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples


_CHUNK = 64


@dataclass(frozen=True)
class StoredAs:
    """What images become: pixels a side, channels, and file format; and how (`fitting.fit_image`)."""

    image_size: int
    channels: int
    encoding: Encoding = "png"
    fit: Fit = "stretch"
    crop: int | None = None
    background: Colour = WHITE


# Image bytes and label; of a sample that cannot be used the error that says why.
Encoded = tuple[bytes, int] | UserError


def encoded_samples(
    source: Source,
    stored_as: StoredAs,
    order: Sequence[int],
    processes: int | None = None,
    recovered: Callable[[int], None] = lambda _: None,
) -> Generator[Encoded, None, None]:
    """The source's samples in the given order; by default in a process a processor.

    `recovered` is told how many more of them are JPEGs that libjpeg only warns of.
    """
    chunks = [list(order[start : start + _CHUNK]) for start in range(0, len(order), _CHUNK)]
    processes = min(processes or os.cpu_count() or 1, len(chunks))
    if processes <= 1:
        for chunk in chunks:
            encoded, count = _encode_chunk(source, stored_as, chunk)
            recovered(count)
            yield from encoded
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _share_source, (source, stored_as))
    try:
        # A few chunks ahead and no more: what is encoded waits in memory for its turn.
        under_way = deque(pool.submit(_encode_shared_chunk, chunk) for chunk in chunks[: 4 * processes])
        waiting = deque(chunks[4 * processes :])
        while under_way:
            encoded, count = under_way.popleft().result()
            recovered(count)
            if waiting:
                under_way.append(pool.submit(_encode_shared_chunk, waiting.popleft()))
            yield from encoded
    except BrokenProcessPool as error:
        raise UserError("a process that encodes images was killed, perhaps for want of memory; try again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _encode_chunk(source: Source, stored_as: StoredAs, numbers: list[int]) -> tuple[list[Encoded], int]:
    """The samples, and how many of them are JPEGs that libjpeg only warns of."""
    before = recovered_jpegs.value
    encoded = [_encode(source, stored_as, number) for number in numbers]
    return encoded, recovered_jpegs.value - before


def _encode(source: Source, stored_as: StoredAs, number: int) -> Encoded:
    try:
        pixels, label = source[number]
        fitted = fit_image(
            pixels, stored_as.image_size, stored_as.channels, stored_as.fit, stored_as.crop, stored_as.background
        )
    except UserError as error:
        return error
    except ValueError as error:
        return UserError(f"{source.name(number)}: {error}")
    return encode_image(fitted, stored_as.encoding), label


# Set once in each process of the pool, so that a source travels once and not with every chunk.
_shared: tuple[Source, StoredAs] | None = None


def _share_source(source: Source, stored_as: StoredAs) -> None:
    global _shared
    _shared = source, stored_as
    _end_with_parent()
    # A Ctrl-C is the parent's to act on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """Ends this process when the one that started it has ended, however it did: nobody else tells it."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="distgan-parent", daemon=True).start()


def _encode_shared_chunk(numbers: list[int]) -> tuple[list[Encoded], int]:
    assert _shared is not None
    return _encode_chunk(*_shared, numbers)


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackOptions:
    """How images are stored.

    Attributes:
        image_size: pixels a side; other sizes are resized bilinearly.
        seed: draws the order of samples in the shards, so that sorted sources mix.
        shard_bytes: a shard is closed once it is at least this large.
        processes: processes that read, resize and encode; by default one a processor.
        fit: what becomes of an image that is not square.
        crop: pixels a side of the centred square that is taken of each image before.
        background: what transparency is composed on, and what padding is filled with.
        bad: whether an image that cannot be read, or is smaller than `crop`, is an error or left out.
    """

    image_size: int
    channels: int
    encoding: Encoding = "png"
    seed: int = 0
    shard_bytes: int = 64 * 2**20
    processes: int | None = None
    fit: Fit = "stretch"
    crop: int | None = None
    background: Colour = WHITE
    bad: BadSamples = "error"


def pack(
    source: Source,
    storage: Storage,
    options: PackOptions,
    progress: Callable[[int], None] = lambda _: None,
    skipped: Callable[[str], None] = lambda _: None,
    recovered: Callable[[int], None] = lambda _: None,
) -> Index:
    """Writes shards, then the index, into the storage; returns the index.

    A sample is `KEY.png|jpg|webp` and, where it has a label, `KEY.cls`. The same source and options give the same
    bytes. `progress` is told the samples done so far, `skipped` why one is left out, `recovered` how
    many more are JPEGs that libjpeg only warns of. Raises UserError where the storage holds a data set or shards
    already, where another process packs into it, and for a bad image that is not to be left out. What fails, or is
    interrupted, leaves nothing behind; what a killed one has left is removed.
    """
    order = np.random.default_rng([options.seed, len(source)]).permutation(len(source)).tolist()
    stored_as = StoredAs(
        options.image_size, options.channels, options.encoding, options.fit, options.crop, options.background
    )
    scanned: list[ScannedShard] = []
    left_out = Counter[str](getattr(source, "left_out", {}))
    count = 0

    def leave_out(reason: str) -> None:
        left_out[BAD] += 1
        skipped(reason)

    with (
        _folder(storage),
        claimed(storage, "packs", "choose another place") as lease,
        _undone_if_it_fails(lease) as written,
        temporary_folder() as folder,
        closing(encoded_samples(source, stored_as, order, options.processes, recovered)) as encoded,
    ):
        _make_room(lease)
        samples = _good_ones(encoded, options.bad, progress, leave_out)
        for first in samples:
            path = folder / _shard_name(len(scanned))
            count += _write_shard(path, chain([first], samples), options, count)
            scanned.append(scan_shard(path))
            lease.write_shards(len(scanned))
            written.append(path.name)
            lease.storage.upload(path, path.name)
            path.unlink()
        if not scanned:
            raise UserError(f"{storage.url}: nothing to pack: none of the {len(source):,} images can be used")
        index = assemble_index(scanned, source.classes, options.channels, left_out)
        written += [TABLE_NAME, INDEX_NAME]
        index.save(lease.storage)
    return index


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def _shard_number(name: str) -> int:
    """The number in a shard's name; −1 for a name that `pack` does not give."""
    found = re.fullmatch(r"shard-([0-9]{5,8})\.tar", name)
    return -1 if found is None else int(found[1])


@contextmanager
def _folder(storage: Storage) -> Iterator[None]:
    """Makes the folder; takes it, and those above it that were made, away if the block fails and they are empty."""
    path = storage.local_path
    absent = [] if path is None else [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        storage.prepare()
        yield
    except BaseException:
        with suppress(OSError):
            for folder in absent:
                folder.rmdir()
        raise


def _make_room(lease: Lease) -> None:
    """Removes the shards that a killed pack has left. Raises UserError where there are others, or a data set."""
    place = lease.storage
    present = place.list()
    if INDEX_NAME in present:
        raise UserError(f"{place.url}: holds a data set already; choose another place or delete it")
    shards = [name for name in present if name.endswith(".tar")]
    left = [name for name in shards if _shard_number(name) in range(lease.left_shards)]
    for name in left:
        place.delete(name)
    if left:
        _log.warning("%s: removed what a killed pack had left there (shards: %d)", place.url, len(left))
    lease.write_shards(0)
    others = [name for name in shards if name not in left]
    if others:
        names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(
            f"{place.url}: holds shards that are not of this data set: {names}; choose another place, or delete them"
        )


@contextmanager
def _undone_if_it_fails(lease: Lease) -> Iterator[list[str]]:
    """For files whose names are put into the list: takes them away if the block fails.

    What was there before stays, as does everything where another process has taken the place over.
    """
    present = lease.storage.list()
    written: list[str] = []
    try:
        yield written
    except BaseException:
        try:
            for name in written:
                if name not in present:
                    lease.storage.delete(name)
        except UserError:
            lease.keep()  # the next pack removes them
        raise


def _good_ones(
    encoded: Iterator[Encoded], bad: BadSamples, progress: Callable[[int], None], skipped: Callable[[str], None]
) -> Iterator[tuple[bytes, int]]:
    """The samples that can be used. Raises UserError for one that cannot, if `bad` is "error"."""
    for number, sample in enumerate(encoded, 1):
        if not isinstance(sample, UserError):
            yield sample
        elif bad == "skip":
            skipped(str(sample))
        else:
            raise UserError(f"{sample}; --bad skip leaves such images out")
        progress(number)


def _write_shard(path: Path, samples: Iterator[tuple[bytes, int]], options: PackOptions, done: int) -> int:
    """Writes one shard of samples from number `done` on; returns how many."""
    count = 0
    with (
        translate_errors(str(path)),
        path.open("wb") as file,
        wds.TarWriter(file, encoder=False, mtime=0, user="", group="") as writer,
    ):
        for image, label in samples:
            sample: dict[str, str | bytes] = {"__key__": f"{done + count:08d}", options.encoding: image}
            if label >= 0:
                sample["cls"] = str(label).encode()
            writer.write(sample)
            count += 1
            if file.tell() >= options.shard_bytes:
                break
    return count
