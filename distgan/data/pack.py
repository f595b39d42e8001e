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
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from distgan.config.plugins import error_text
from distgan.data.files import BAD
from distgan.data.images import (
    UNREADABLE,
    WHITE,
    Color,
    Encoding,
    Fit,
    encode_image,
    encoding_of,
    fit_image,
    kept_encoding,
    recovered_jpegs,
    stretched_images,
    unreadable_reason,
)
from distgan.data.index import INDEX_NAME, TABLE_NAME, Index
from distgan.data.scan import ScannedShard, assemble_index, scan_shard
from distgan.data.sources.base import Source
from distgan.data.sources.image_files import FileSource, image_pixels
from distgan.errors import UserError
from distgan.storage.lease import Lease, claimed
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import Storage, UnavailableError, translate_errors

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples


_CHUNK = 64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackOptions:
    """How images are stored.

    Attributes:
        image_size: pixels a side; other sizes are resized bilinearly.
        seed: decides the order of samples in the shards, so that sorted sources mix.
        shard_bytes: a shard is closed once it is at least this large.
        processes: processes that read, resize and encode; by default one a processor that this one may use.
        fit: how an image that is not square becomes a square.
        crop: pixels a side of the centered square that is cut out of each image first.
        background: the color that transparency is composed on and padding has.
        encoding: the format of the images; "keep" stores files that need no change as they are, others in their own
            format if it is one of `Encoding`, else as PNG.
        bad: whether an image that cannot be read, or is smaller than `crop`, is an error or left out.
    """

    image_size: int
    channels: int
    encoding: Encoding | Literal["keep"] = "png"
    seed: int = 0
    shard_bytes: int = 64 * 2**20
    processes: int | None = None
    fit: Fit = "stretch"
    crop: int | None = None
    background: Color = WHITE
    bad: BadSamples = "error"


class EncodedImage(NamedTuple):
    """An image as it is stored; `kept` if it is the source's file, unchanged."""

    data: bytes
    label: int
    encoding: Encoding
    kept: bool = False


# For a sample that cannot be used, the error that says why.
Encoded = EncodedImage | UserError


def encoded_samples(
    source: Source,
    options: PackOptions,
    order: Sequence[int],
    on_recovered: Callable[[int], None] | None = None,
    on_stretched: Callable[[int], None] | None = None,
) -> Generator[Encoded, None, None]:
    """The source's samples in the given order, encoded by `options.processes` processes.

    `on_recovered` receives how many more of them are JPEGs that libjpeg only warns of, `on_stretched` how many more
    were stretched.
    """
    chunks = [list(order[start : start + _CHUNK]) for start in range(0, len(order), _CHUNK)]
    processes = min(options.processes or len(os.sched_getaffinity(0)), len(chunks))
    encode = _encode_here if processes <= 1 else _encode_in_processes
    for encoded, recovered, stretched in encode(source, options, chunks, processes):
        if on_recovered is not None:
            on_recovered(recovered)
        if on_stretched is not None:
            on_stretched(stretched)
        yield from encoded


# A chunk's samples, how many of them are JPEGs that libjpeg only warns of, and how many were stretched.
_EncodedChunk = tuple[list[Encoded], int, int]


def _encode_here(
    source: Source, options: PackOptions, chunks: list[list[int]], processes: int
) -> Generator[_EncodedChunk, None, None]:
    for chunk in chunks:
        yield _encode_chunk(source, options, chunk)


def _encode_in_processes(
    source: Source, options: PackOptions, chunks: list[list[int]], processes: int
) -> Generator[_EncodedChunk, None, None]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _share_source, (source, options))
    try:
        # Only a few chunks ahead: encoded samples wait in memory for their turn.
        pending = deque(pool.submit(_encode_shared_chunk, chunk) for chunk in chunks[: 4 * processes])
        waiting = deque(chunks[4 * processes :])
        while pending:
            encoded = pending.popleft().result()
            if waiting:
                pending.append(pool.submit(_encode_shared_chunk, waiting.popleft()))
            yield encoded
    except BrokenProcessPool as error:
        raise UserError("a process that encodes images was killed, perhaps for lack of memory; try again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _encode_chunk(source: Source, options: PackOptions, numbers: list[int]) -> _EncodedChunk:
    recovered, stretched = recovered_jpegs.value, stretched_images.value
    encoded = [_encode(source, options, number) for number in numbers]
    return encoded, recovered_jpegs.value - recovered, stretched_images.value - stretched


def _encode(source: Source, options: PackOptions, number: int) -> Encoded:
    data = None
    try:
        if options.encoding == "keep" and isinstance(source, FileSource):
            data, label = source.file(number), source.label(number)
            pixels = image_pixels(data, source.name(number))
        else:
            pixels, label = source[number]
        if not -1 <= label < len(source.classes):
            raise ValueError(f"its label is {label}, and the source has {len(source.classes)} classes")
        fitted = fit_image(pixels, options.image_size, options.channels, options.fit, options.crop, options.background)
    except UnavailableError:  # which says nothing about the image
        raise
    except UserError as error:
        return error
    except UNREADABLE as error:
        return UserError(f"{source.name(number)}: {unreadable_reason(error)}")
    except Exception as error:
        kind = type(source)
        if kind.__module__.startswith("distgan."):
            raise
        raise UserError(
            f"{kind.__module__}:{kind.__name__}: {source.name(number)}: it raised {error_text(error)}"
        ) from error
    if data is not None and (kept := kept_encoding(data, fitted)) is not None:
        return EncodedImage(data, label, kept, kept=True)
    encoding = options.encoding
    if encoding == "keep":
        encoding = (encoding_of(data) if data is not None else None) or "png"
    return EncodedImage(encode_image(fitted, encoding), label, encoding)


# Set once in each process of the pool, so that a source is sent once and not with every chunk.
_shared: tuple[Source, PackOptions] | None = None


def _share_source(source: Source, options: PackOptions) -> None:
    global _shared
    _shared = source, options
    _end_with_parent()
    # The parent handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, even if the parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="distgan-parent", daemon=True).start()


def _encode_shared_chunk(numbers: list[int]) -> _EncodedChunk:
    assert _shared is not None
    return _encode_chunk(*_shared, numbers)


def pack(
    source: Source,
    storage: Storage,
    options: PackOptions,
    on_progress: Callable[[int], None] | None = None,
    on_skip: Callable[[str], None] | None = None,
    on_recovered: Callable[[int], None] | None = None,
    on_stretched: Callable[[int], None] | None = None,
    on_kept: Callable[[int], None] | None = None,
) -> Index:
    """Writes shards, then the index, into the storage; returns the index.

    A sample is `KEY.png|jpg|webp` and, where it has a label, `KEY.cls`. The same source and options give the same
    bytes. A failed or interrupted call leaves nothing behind; the next call removes what a killed one left.

    Args:
        on_progress: receives the number of samples done so far.
        on_skip: receives the reason for each sample that is left out.
        on_recovered: receives how many more images are JPEGs that libjpeg only warns of.
        on_stretched: receives how many more images, clearly not square, were stretched to a square.
        on_kept: receives how many more images were stored as they are (`PackOptions.encoding` "keep").

    Raises:
        UserError: a data set, other shards or another process at work in the storage; a bad image, unless
            `options.bad` is "skip".
    """
    order = np.random.default_rng([options.seed, len(source)]).permutation(len(source)).tolist()
    left_out = Counter[str](source.left_out)

    def leave_out(reason: str) -> None:
        left_out[BAD] += 1
        if on_skip is not None:
            on_skip(reason)

    with closing(encoded_samples(source, options, order, on_recovered, on_stretched)) as encoded:
        samples = _good_samples(encoded, options.bad, on_progress, leave_out, on_kept)
        return write_shards(storage, _some(samples, storage, len(source)), options, source.classes, left_out)


def write_shards(
    storage: Storage,
    samples: Iterator[EncodedImage],
    options: PackOptions,
    classes: Sequence[str],
    left_out: Counter[str] | None = None,
) -> Index:
    """Writes encoded images and their labels, at least one, as shards in their order, then the index; returns it.

    Args:
        options: of these, channels and size of a shard.
        left_out: is read after the last sample.

    A failed or interrupted call leaves nothing behind. Raises UserError as `pack` does.
    """
    scanned: list[ScannedShard] = []
    count = 0
    with (
        _new_folder(storage),
        claimed(storage, "packs", "choose another place") as lease,
        _remove_on_error(lease) as written,
        temporary_folder() as folder,
    ):
        _remove_leftovers(lease)
        for first in samples:
            path = folder / _shard_name(len(scanned))
            count += _write_shard(path, chain([first], samples), options.shard_bytes, count)
            scanned.append(scan_shard(path))
            lease.write_shards(len(scanned))
            written.append(path.name)
            lease.storage.upload(path, path.name)
            path.unlink()
        index = assemble_index(scanned, list(classes), options.channels, left_out or Counter())
        written += [TABLE_NAME, INDEX_NAME]
        index.save(lease.storage)
    return index


def _some(samples: Iterator[EncodedImage], storage: Storage, images: int) -> Iterator[EncodedImage]:
    """The samples. Raises UserError where there are none."""
    first = next(samples, None)
    if first is None:
        raise UserError(f"{storage.url}: nothing to pack: none of the {images:,} images can be used")
    yield first
    yield from samples


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def _shard_number(name: str) -> int:
    """The number in a shard's name; −1 for a name that `pack` does not give."""
    found = re.fullmatch(r"shard-([0-9]{5,8})\.tar", name)
    return -1 if found is None else int(found[1])


@contextmanager
def _new_folder(storage: Storage) -> Iterator[None]:
    """Makes the folder. If the block fails, removes it and its new parents where they are empty."""
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


def _remove_leftovers(lease: Lease) -> None:
    """Deletes the shards that a killed pack left. Raises UserError for other shards or a data set."""
    storage = lease.storage
    present = storage.list()
    if INDEX_NAME in present:
        raise UserError(f"{storage.url}: holds a data set already; choose another place or delete it")
    shards = [name for name in present if name.endswith(".tar")]
    left = [name for name in shards if _shard_number(name) in range(lease.left_shards)]
    for name in left:
        storage.delete(name)
    if left:
        _log.warning("%s: removed what a killed pack had left there (shards: %d)", storage.url, len(left))
    lease.write_shards(0)
    others = [name for name in shards if name not in left]
    if others:
        names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(
            f"{storage.url}: holds shards that are not of this data set: {names}; choose another place, or delete them"
        )


@contextmanager
def _remove_on_error(lease: Lease) -> Iterator[list[str]]:
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


def _good_samples(
    encoded: Iterator[Encoded],
    bad: BadSamples,
    on_progress: Callable[[int], None] | None,
    on_skip: Callable[[str], None],
    on_kept: Callable[[int], None] | None,
) -> Iterator[EncodedImage]:
    """The samples that can be used. Raises UserError for another one if `bad` is "error"."""
    for number, sample in enumerate(encoded, 1):
        if not isinstance(sample, UserError):
            if sample.kept and on_kept is not None:
                on_kept(1)
            yield sample
        elif bad == "skip":
            on_skip(str(sample))
        else:
            raise UserError(f"{sample}; --bad skip leaves such images out")
        if on_progress is not None:
            on_progress(number)


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
