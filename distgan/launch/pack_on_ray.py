"""A pack whose images are encoded by the processors of a Ray cluster, to the bytes of a pack on one machine."""

from __future__ import annotations

import platform
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from itertools import chain, islice
from typing import Any

import ray

from distgan.data.encode import (
    Encoded,
    EncodedImage,
    Encoder,
    PackOptions,
    RawImage,
    chunks_of,
    encode,
    encode_raw,
    read_raw,
)
from distgan.data.sources.base import Source
from distgan.errors import UserError
from distgan.launch.cluster import ray_cluster
from distgan.launch.ray_errors import report_losses

_AHEAD = 4  # chunks a processor

_SENT = 8  # images of a chunk that is sent: photographs of 100 megapixels have many megabytes

_COUNT_S = 5.0

_PATIENCE_S = 20.0


@contextmanager
def ray_encoder(address: str | None, modules: Sequence[str], log: Callable[[str], None]) -> Iterator[Encoder]:
    """Connects to a cluster, on which the encoder works until the block ends.

    Its nodes read the images themselves where they see the source as this machine does; else this machine reads them
    and sends them there.

    Args:
        modules: files and folders of Python modules that a source of a user's own needs.
        log: receives a line where images are sent, or where the cluster has no free processor.

    Raises:
        UserError: a cluster that cannot be used or is lost; a node that encodes an image to other bytes than this one.
    """
    with report_losses("data pack", "continues it"), ray_cluster(address, modules):
        yield partial(_encode_on_cluster, log)


@dataclass(frozen=True)
class _Job:
    """What the tasks of a pack share.

    Attributes:
        number: of a sample that can be used, as this machine reads it (`raw`) and encodes it (`encoded`).
    """

    source: Source
    options: PackOptions
    number: int
    raw: RawImage
    encoded: EncodedImage

    @cached_property
    def problem(self) -> str:
        """Why this process cannot read the source; empty where it reads what the other machine has read.

        Raises UserError where it encodes an image otherwise.
        """
        if encode_raw(self.raw, self.options) != self.encoded:
            raise UserError(
                f"{platform.node()}: encodes {self.raw.name} to other bytes than this machine does (it has Pillow "
                f"{version('pillow')}, simplejpeg {version('simplejpeg')}); install the same versions on all nodes"
            )
        try:
            found = encode(self.source, self.options, self.number)
        except UserError as error:
            return str(error)
        if isinstance(found, UserError):
            return str(found)
        return "" if found == self.encoded else f"{self.raw.name} is another image there"


# A task's images, or why its node cannot read the source, or the error that ends the pack.
_Result = list[Encoded] | str | UserError

_Chunk = list[int] | list[RawImage | UserError]

# Of this process: the job of its last task, by the id of its reference.
_last: tuple[str, _Job] | None = None


def _encode_chunk(shared: list[Any], chunk: _Chunk) -> _Result:
    """Runs in a process of the cluster. The reference is in a list, so that Ray does not fetch the job every time."""
    global _last
    (reference,) = shared
    if _last is None or _last[0] != reference.hex():
        _last = reference.hex(), ray.get(reference)
    job = _last[1]
    try:
        if job.problem and isinstance(chunk[0], int):
            return f"{platform.node()}: {job.problem}"
        return [_encoded(job, sample) for sample in chunk]
    except UserError as error:
        return error


def _encoded(job: _Job, sample: int | RawImage | UserError) -> Encoded:
    if isinstance(sample, int):
        return encode(job.source, job.options, sample)
    return sample if isinstance(sample, UserError) else encode_raw(sample, job.options)


_task = ray.remote(num_cpus=1)(_encode_chunk)


def _encode_on_cluster(
    log: Callable[[str], None], source: Source, options: PackOptions, order: Sequence[int]
) -> Generator[Encoded, None, None]:
    """See `data.encode.Encoder`."""
    done = 0
    for number in order:  # bad images before the first good one
        raw = read_raw(source, options, number)
        encoded = raw if isinstance(raw, UserError) else encode_raw(raw, options)
        if not isinstance(raw, UserError) and not isinstance(encoded, UserError):
            break
        yield encoded
        done += 1
    else:
        return
    tasks = _Tasks(_Job(source, options, number, raw, encoded), order[done:], log)
    while (images := tasks.next()) is not None:
        yield from images


class _Tasks:
    """The tasks that encode samples in order, some of them ahead."""

    def __init__(self, job: _Job, order: Sequence[int], log: Callable[[str], None]) -> None:
        self._job, self._shared, self._log = job, [ray.put(job)], log
        self._rest: Iterator[list[int]] = chunks_of(order)
        self._pending: deque[tuple[list[int], Any]] = deque()
        self._sends = self._waited = False
        self._processors, self._counted = 1, float("-inf")

    def next(self) -> list[Encoded] | None:
        """The images of the next chunk; None after the last one."""
        while True:
            room = _AHEAD * self._count_processors() - len(self._pending)
            self._pending.extend((chunk, self._start(chunk)) for chunk in islice(self._rest, max(0, room)))
            if not self._pending:
                return None
            result = self._wait_for(self._pending[0][1])
            if isinstance(result, UserError):
                raise result
            if not isinstance(result, str):
                self._pending.popleft()
                return result
            self._send(result)

    def _send(self, problem: str) -> None:
        """From now on, and for all chunks that are under way, this machine reads the images."""
        self._log(f"nodes cannot read the source ({problem}); this machine reads it and sends the images to them")
        again = [number for chunk, _ in self._pending for number in chunk]
        self._rest = chunks_of([*again, *chain.from_iterable(self._rest)], _SENT)
        self._pending.clear()
        self._sends = True

    def _start(self, chunk: list[int]) -> Any:
        job = self._job
        sent: _Chunk = [read_raw(job.source, job.options, number) for number in chunk] if self._sends else chunk
        return _task.remote(self._shared, sent)

    def _wait_for(self, task: Any) -> _Result:
        if not self._waited and not ray.wait([task], timeout=_PATIENCE_S)[0]:
            self._log("waiting for a free processor of the cluster; Ctrl-C ends the wait")
        self._waited = True
        result: _Result = ray.get(task)
        return result

    def _count_processors(self) -> int:
        """Processors of the cluster, to which nodes may be added meanwhile; at least 1."""
        now = time.monotonic()
        if now >= self._counted + _COUNT_S:
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            self._processors, self._counted = max(1, int(resources.get("CPU", 0))), now
        return self._processors
