"""Writes encoded images as WebDataset shards into a folder that this process has claimed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from distgan.data.encode import EncodedImage, PackOptions
from distgan.data.index import INDEX_NAME, TABLE_NAME, Index
from distgan.data.scan import ScannedShard, assemble_index, scan_shard
from distgan.errors import UserError
from distgan.storage.lease import Lease, claimed
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import Storage, translate_errors

# What an unfinished pack has finished: see `pack_record`.
RECORD_NAME = "packing.json"

_log = logging.getLogger(__name__)


def write_shards(
    storage: Storage, samples: Iterator[EncodedImage], options: PackOptions, classes: Sequence[str]
) -> Index:
    """Writes encoded images and their labels, at least one, as shards in their order, then the index; returns it.

    Of the options it reads channels and size of a shard. A failed or interrupted call leaves nothing behind. Raises
    UserError for a data set, other shards or another process at work in the storage.
    """
    with claimed_folder(storage) as lease:
        check_place(lease)
        with removed_on_error(lease) as written:
            scanned: list[ScannedShard] = []
            add_shards(lease, samples, options.shard_bytes, scanned, written.append)
            index = assemble_index(scanned, list(classes), options.channels)
            written += [TABLE_NAME, INDEX_NAME]
            index.save(lease.storage)
    return index


def add_shards(
    lease: Lease,
    samples: Iterator[EncodedImage],
    shard_bytes: int,
    scanned: list[ScannedShard],
    on_upload: Callable[[str], None],
    on_shard: Callable[[ScannedShard], None] | None = None,
) -> None:
    """Writes samples as shards that follow those in `scanned`, and adds them there.

    `on_upload` receives a shard's name before it is uploaded, `on_shard` the shard afterwards. No sample is taken from
    the iterator between the last one of a shard and these calls.
    """
    count = sum(len(each.samples) for each in scanned)
    with temporary_folder() as folder:
        for first in samples:
            path = folder / shard_name(len(scanned))
            count += _write_shard(path, chain([first], samples), shard_bytes, count)
            shard = scan_shard(path)
            lease.write_shards(len(scanned) + 1)
            on_upload(path.name)
            lease.storage.upload(path, path.name)
            path.unlink()
            scanned.append(shard)
            if on_shard is not None:
                on_shard(shard)


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def _shard_number(name: str) -> int:
    """The number in a shard's name; −1 for a name that `pack` does not give."""
    found = re.fullmatch(r"shard-([0-9]{5,8})\.tar", name)
    return -1 if found is None else int(found[1])


@contextmanager
def claimed_folder(storage: Storage) -> Iterator[Lease]:
    """Makes the folder and claims it. If the block fails, removes it and its new parents where they are empty."""
    path = storage.local_path
    absent = [] if path is None else [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        storage.prepare()
        with claimed(storage, "packs", "choose another place") as lease:
            yield lease
    except BaseException:
        with suppress(OSError):
            for folder in absent:
                folder.rmdir()
        raise


def check_place(lease: Lease, kept: int = 0, recorded: int = 0) -> None:
    """Deletes what an unfinished pack left there, but for its first `kept` shards.

    Args:
        recorded: how many shards it had finished; it may have written one more.

    Raises UserError for a data set or other shards.
    """
    storage = lease.storage
    present = storage.list()
    if INDEX_NAME in present:
        raise UserError(f"{storage.url}: holds a data set already; choose another place or delete it")
    if RECORD_NAME in present and not recorded:
        raise UserError(f"{storage.url}: holds an unfinished pack; choose another place or delete it")
    begun = max(lease.left_shards, recorded + 1 if recorded else 0)
    shards = [name for name in present if name.endswith(".tar")]
    others = [name for name in shards if _shard_number(name) not in range(begun)]
    if others:
        names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(
            f"{storage.url}: holds shards that are not of this data set: {names}; choose another place, or delete them"
        )
    left = [name for name in shards if _shard_number(name) in range(kept, begun)]
    for name in left:
        storage.delete(name)
    if left and not kept:
        _log.warning("%s: removed what an unfinished pack had left there (shards: %d)", storage.url, len(left))
    lease.write_shards(kept)


@contextmanager
def removed_on_error(lease: Lease) -> Iterator[list[str]]:
    """Yields a list for the names of written files, which are deleted if the block fails.

    Files that were there before stay. So does everything if another process has taken the storage over.
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
            lease.keep()  # the next pack deletes them
        raise


def _write_shard(path: Path, images: Iterator[EncodedImage], shard_bytes: int, done: int) -> int:
    """Writes one shard, whose first image has number `done`; returns its number of images."""
    import webdataset as wds  # imports torch, which the processes that encode images do without

    count = 0
    with (
        translate_errors(str(path)),
        path.open("wb") as file,
        wds.TarWriter(file, encoder=False, mtime=0, user="", group="") as writer,
    ):
        for image in images:
            sample: dict[str, str | bytes] = {"__key__": f"{done + count:08d}", image.encoding: image.data}
            if image.label >= 0:
                sample["cls"] = str(image.label).encode()
            writer.write(sample)
            count += 1
            if file.tell() >= shard_bytes:
                break
    return count
