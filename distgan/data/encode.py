"""Reads a source's images and encodes them as they are stored, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from distgan.config.plugins import error_text
from distgan.container import usable_processes
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
from distgan.data.sources.base import Source
from distgan.data.sources.image_files import FileSource, image_pixels
from distgan.errors import UserError
from distgan.storage.storage import UnavailableError

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples


_CHUNK = 64


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


class RawImage(NamedTuple):
    """An image as its source has it: its file's bytes, or pixels as `Source.__getitem__` gives them.

    Attributes:
        kind: the source's class, `module:Class`.
        recovered: JPEGs that libjpeg warned of, if the source decoded them: 0 or 1.
    """

    content: bytes | NDArray[np.uint8]
    label: int
    name: str
    kind: str
    recovered: int = 0


class EncodedImage(NamedTuple):
    """An image as it is stored.

    Attributes:
        kept: whether it is the source's file, unchanged.
        recovered: whether it was a JPEG that libjpeg only warns of.
        stretched: whether it was stretched, from a shape that is clearly no square.
    """

    data: bytes
    label: int
    encoding: Encoding
    kept: bool = False
    recovered: bool = False
    stretched: bool = False


# For a sample that cannot be used, the error that says why.
Encoded = EncodedImage | UserError

# Encodes the source's samples with these numbers, in this order.
Encoder = Callable[[Source, PackOptions, Sequence[int]], Generator[Encoded, None, None]]

T = TypeVar("T")


def encode(source: Source, options: PackOptions, number: int) -> Encoded:
    """A sample of a source, encoded. Raises UnavailableError where storage does not answer."""
    raw = read_raw(source, options, number)
    return raw if isinstance(raw, UserError) else encode_raw(raw, options)


def read_raw(source: Source, options: PackOptions, number: int) -> RawImage | UserError:
    """Reads a sample, whose file is decoded later; else for one that cannot be read, the error that says why."""
    kind = f"{type(source).__module__}:{type(source).__qualname__}"

    def read() -> RawImage:
        before = recovered_jpegs.value
        if isinstance(source, FileSource) and (options.encoding == "keep" or _decodes_as_usual(source)):
            content: bytes | NDArray[np.uint8] = source.file(number)
            label = source.label(number)
        else:
            content, label = source[number]
        if not -1 <= label < len(source.classes):
            raise ValueError(f"its label is {label}, and the source has {len(source.classes)} classes")
        return RawImage(content, label, source.name(number), kind, recovered_jpegs.value - before)

    return _checked(read, lambda: source.name(number), kind)


def encode_raw(raw: RawImage, options: PackOptions) -> Encoded:
    """The image, decoded, fitted and encoded; else the error that says why it cannot be used."""
    data = raw.content if isinstance(raw.content, bytes) else None
    recovered, stretched = recovered_jpegs.value, stretched_images.value

    def fit() -> NDArray[np.uint8]:
        pixels = image_pixels(raw.content, raw.name) if isinstance(raw.content, bytes) else raw.content
        return fit_image(pixels, options.image_size, options.channels, options.fit, options.crop, options.background)

    fitted = _checked(fit, lambda: raw.name, raw.kind)
    if isinstance(fitted, UserError):
        return fitted
    flags = bool(raw.recovered + recovered_jpegs.value - recovered), stretched_images.value > stretched
    encoding = options.encoding
    if encoding == "keep":
        if data is not None and (kept := kept_encoding(data, fitted)) is not None:
            return EncodedImage(data, raw.label, kept, True, *flags)
        encoding = (encoding_of(data) if data is not None else None) or "png"
    return EncodedImage(encode_image(fitted, encoding), raw.label, encoding, False, *flags)


def _decodes_as_usual(source: FileSource) -> bool:
    return type(source).__getitem__ is FileSource.__getitem__


def _checked(action: Callable[[], T], name: Callable[[], str], kind: str) -> T | UserError:
    """The result, or the error of a bad image. An exception of a user's own source becomes a UserError."""
    try:
        return action()
    except UnavailableError:  # which says nothing about the image
        raise
    except UserError as error:
        return error
    except UNREADABLE as error:
        return UserError(f"{name()}: {unreadable_reason(error)}")
    except Exception as error:
        if kind.startswith("distgan."):
            raise
        raise UserError(f"{kind}: {name()}: it raised {error_text(error)}") from error


def chunks_of(numbers: Sequence[int], size: int = _CHUNK) -> Iterator[list[int]]:
    """The numbers, as many at a time as are sent to a process."""
    return (list(numbers[start : start + size]) for start in range(0, len(numbers), size))


def encoded_samples(source: Source, options: PackOptions, order: Sequence[int]) -> Generator[Encoded, None, None]:
    """The source's samples in the given order, encoded by `options.processes` processes."""
    processes = min(options.processes or usable_processes(), -(-len(order) // _CHUNK))
    if processes > 1:
        yield from _encode_in_processes(source, options, chunks_of(order), processes)
    else:
        yield from (encode(source, options, number) for number in order)


def _encode_in_processes(
    source: Source, options: PackOptions, chunks: Iterator[list[int]], processes: int
) -> Generator[Encoded, None, None]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _share_source, (source, options))
    try:
        # Only a few chunks ahead: encoded samples wait in memory for their turn.
        pending = deque(pool.submit(_encode_shared_chunk, chunk) for chunk in islice(chunks, 4 * processes))
        while pending:
            encoded = pending.popleft().result()
            pending.extend(pool.submit(_encode_shared_chunk, chunk) for chunk in islice(chunks, 1))
            yield from encoded
    except BrokenProcessPool as error:
        raise UserError("a process that encodes images was killed, perhaps for lack of memory; try again") from error
    finally:
        pool.shutdown(cancel_futures=True)


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


def _encode_shared_chunk(numbers: list[int]) -> list[Encoded]:
    assert _shared is not None
    source, options = _shared
    return [encode(source, options, number) for number in numbers]
