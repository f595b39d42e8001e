"""Reads, fits and encodes a source's samples in several processes.

A module of its own, so that these processes load nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from distgan.data.fitting import Fit, fit_image
from distgan.data.images import WHITE, Colour, Encoding, encode_image, recovered_jpegs
from distgan.data.sources.base import Source
from distgan.errors import UserError

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
