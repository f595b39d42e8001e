"""Batches of images in the data's fixed order, read and decoded ahead of the training loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distgan.data.dataset import Dataset
from distgan.data.order import Order

_READERS = 8


@dataclass(frozen=True)
class Group:
    """One group's share of a batch.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,); −1 where a sample has none.
        bad_samples: how many of the samples are bad and met for the first time. They have the image and label of a
            substitute.
    """

    images: Tensor
    labels: Tensor
    bad_samples: int = 0


@dataclass(frozen=True)
class _PlannedGroup:
    """A group of which images are still being decoded; `first_seen` are its samples that no earlier batch has."""

    images: Tensor
    samples: NDArray[np.int64]
    first_seen: list[int]


@dataclass(frozen=True)
class _PlannedBatch:
    groups: list[_PlannedGroup]
    decoding: list[Future[None]]


class _Job(NamedTuple):
    """A sample to decode into `out`, (H, W, C), from the bytes of blocks; `place` is its place in memory."""

    sample: int
    place: int
    blocks: dict[int, bytes]
    out: NDArray[np.uint8]


class BatchStream:
    """The batches of one worker, from `start_batch` on, without end.

    The blocks of a window are downloaded while the window before is in use. One thread plans the batches;
    `decode_threads` others decode their samples, in place. Samples are kept as far as `memory_bytes` allows; once all
    are kept, a batch is a gather.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        *,
        groups: range,
        num_groups: int,
        batch_size: int,
        start_batch: int,
        memory_bytes: int,
        prefetch_batches: int,
        decode_threads: int = 1,
        gpu: torch.device | None = None,
    ) -> None:
        """Batches for a GPU lie in pinned memory, from which it copies while the host goes on."""
        self._gpu = gpu
        self._dataset, self._index, self._order = dataset, dataset.index, order
        self._groups, self._num_groups, self._batch_size = groups, num_groups, batch_size
        self._share = batch_size // len(order.streams)
        numbers = [number for group in groups for number in order.group_streams(group, num_groups)]
        ranges = [(order.streams[number].first, order.streams[number].stop) for number in sorted(numbers)]
        self._decoded = _DecodedSamples(dataset.shape, ranges, memory_bytes)
        # Bad samples met so far, and the substitute of each.
        self._substitutes: dict[int, int] = {}
        self._windows: dict[tuple[int, int, int], Future[dict[int, bytes]]] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="distgan-read")
        self._decode_threads = decode_threads
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="distgan-decode")
        self._queue: queue.Queue[_PlannedBatch | BaseException] = queue.Queue(prefetch_batches)
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._next = start_batch
        self._thread = threading.Thread(target=self._run, name="distgan-batches", daemon=True)
        self._thread.start()

    def next(self) -> list[Group]:
        """This worker's groups of the next batch. Raises UserError, at every call, if the data cannot be read."""
        assert not self._stopped.is_set(), "the stream is closed"
        try:
            if self._failure is not None:
                raise self._failure
            planned = self._queue.get()
            if isinstance(planned, BaseException):
                raise planned
            for part in planned.decoding:
                part.result()
        except BaseException as error:
            self._failure = error
            raise
        return [self._finish(group) for group in planned.groups]

    def close(self) -> None:
        """Stops reading, and any waiting for unavailable storage; returns when the threads have ended."""
        self._stopped.set()
        self._dataset.reader.retry.cancel()
        for pool in (self._readers, self._decoders):
            pool.shutdown(wait=False, cancel_futures=True)
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.05)
        for pool in (self._readers, self._decoders):
            pool.shutdown(wait=True)

    def _run(self) -> None:
        try:
            if self._gpu is not None:
                torch.cuda.set_device(self._gpu)  # pinned memory belongs to a device
            while not self._stopped.is_set():
                self._queue.put(self._plan(self._next))
                self._next += 1
        except BaseException as error:  # noqa: BLE001 - passed to the consumer, which raises it
            if not self._stopped.is_set():
                self._queue.put(error)

    def _plan(self, batch: int) -> _PlannedBatch:
        """The batch, with the kept samples in their places and the others being decoded."""
        groups, jobs = [], []
        position = batch * self._share
        for group in self._groups:
            numbers = self._order.group_streams(group, self._num_groups)
            samples = [self._order.streams[number].samples(position, self._share) for number in numbers]
            images = self._empty_images(len(numbers) * self._share)
            pixels = images.numpy().transpose(0, 2, 3, 1)
            for row, (number, part) in enumerate(zip(numbers, samples, strict=True)):
                rows = pixels[row * self._share : (row + 1) * self._share]
                jobs += self._fill(rows, number, position, part)
            first_seen = [
                part[: max(0, len(self._order.streams[number]) - position)]
                for number, part in zip(numbers, samples, strict=True)
            ]
            groups.append(_PlannedGroup(images, np.concatenate(samples), np.concatenate(first_seen).tolist()))
        size = -(-len(jobs) // self._decode_threads)
        decoding = [self._decoders.submit(self._decode, jobs[at : at + size]) for at in range(0, len(jobs), size or 1)]
        return _PlannedBatch(groups, decoding)

    def _empty_images(self, count: int) -> Tensor:
        """uint8 (count, C, H, W) in the order of memory in which images are decoded, channels last."""
        channels, height, width = self._dataset.shape
        shape = (count, height, width, channels)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._gpu is not None).permute(0, 3, 1, 2)

    def _fill(self, rows: NDArray[np.uint8], number: int, position: int, samples: NDArray[np.int64]) -> list[_Job]:
        """Copies a stream's samples that are kept to their rows, and returns what is to be decoded into the others."""
        places = self._decoded.places(samples)
        kept = self._decoded.has(places)
        blocks: dict[int, bytes] = {}
        if not kept.all():
            blocks = self._window_bytes(number, position)
            # Meanwhile the decoders may have kept more; a block is not downloaded when all of its samples are kept.
            kept = self._decoded.has(places)
        self._decoded.copy(places, kept, rows)
        absent = np.flatnonzero(~kept).tolist()
        return [_Job(int(samples[row]), int(places[row]), blocks, rows[row]) for row in absent]

    def _decode(self, jobs: list[_Job]) -> None:
        for sample, place, blocks, out in jobs:
            block = self._dataset.block_of(sample)
            start = self._substitutes.get(sample, sample)
            shown = self._dataset.decode_or_next(start, block, blocks[block.number], out)
            if shown != sample:
                self._substitutes[sample] = shown
            self._decoded.keep(place, out)

    def _finish(self, group: _PlannedGroup) -> Group:
        """The group, once its images are decoded."""
        shown: Sequence[int] | NDArray[np.int64] = group.samples
        bad_samples = 0
        if self._substitutes:
            shown = [self._substitutes.get(sample, sample) for sample in group.samples.tolist()]
            bad_samples = sum(sample in self._substitutes for sample in group.first_seen)
        labels = torch.from_numpy(self._index.labels[shown])
        return Group(group.images, labels if self._gpu is None else labels.pin_memory(), bad_samples)

    def _window_bytes(self, number: int, position: int) -> dict[int, bytes]:
        """Bytes of the blocks of all windows that a batch spans, by block number. Starts the next window's download."""
        stream = self._order.streams[number]
        epoch, window, _ = stream.locate(position)
        last_epoch, last_window, _ = stream.locate(position + self._share - 1)
        wanted = [(epoch, window)]
        while wanted[-1] != (last_epoch, last_window):
            wanted.append(self._following(number, *wanted[-1]))
        ahead = self._following(number, *wanted[-1])
        for key in [key for key in self._windows if key[0] == number and key[1:] not in (*wanted, ahead)]:
            del self._windows[key]
        for each in (*wanted, ahead):
            if (number, *each) not in self._windows:
                self._windows[number, *each] = self._readers.submit(self._download, number, *each)
        blocks: dict[int, bytes] = {}
        for each in wanted:
            blocks |= self._windows[number, *each].result()
        return blocks

    def _following(self, number: int, epoch: int, window: int) -> tuple[int, int]:
        last = window == self._order.streams[number].windows_per_epoch - 1
        return (epoch + 1, 0) if last else (epoch, window + 1)

    def _download(self, number: int, epoch: int, window: int) -> dict[int, bytes]:
        slices = self._order.streams[number].window(epoch, window).slices
        blocks = [
            self._index.blocks[part.block]
            for part in slices
            if not self._decoded.has(self._decoded.places(np.arange(part.first, part.stop))).all()
        ]
        if not blocks:
            return {}
        return {block.number: data for block, data in zip(blocks, self._dataset.reader.read(blocks), strict=True)}


class _DecodedSamples:
    """Decoded samples of ascending ranges [first, stop), as many as fit into `memory_bytes`; one place for each.

    Several threads may use it: they keep the same image of a sample.
    """

    def __init__(self, shape: tuple[int, int, int], ranges: Sequence[tuple[int, int]], memory_bytes: int) -> None:
        channels, height, width = shape
        sizes = [stop - first for first, stop in ranges]
        self._firsts = np.array([first for first, _ in ranges])
        # A sample's place is its number minus the preceding numbers that are in no range.
        self._left_out = self._firsts - np.cumsum([0, *sizes[:-1]])
        capacity = min(sum(sizes), memory_bytes // int(np.prod(shape)))
        # Untouched pages take no memory, so this grows with the decoded samples.
        self._pixels = np.empty((capacity, height, width, channels), np.uint8)
        self._known = np.zeros(capacity, bool)

    def places(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples' places, those that do not fit included."""
        places: NDArray[np.int64] = samples - self._left_out[np.searchsorted(self._firsts, samples, side="right") - 1]
        return places

    def has(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which places have their image."""
        known = np.zeros(len(places), bool)
        inside = places < len(self._known)
        known[inside] = self._known[places[inside]]
        return known

    def copy(self, places: NDArray[np.int64], chosen: NDArray[np.bool_], rows: NDArray[np.uint8]) -> None:
        """Copies the images of the chosen places to the same rows, (N, H, W, C)."""
        if chosen.all():
            np.take(self._pixels, places, axis=0, out=rows, mode="clip")
        elif chosen.any():
            rows[chosen] = self._pixels[places[chosen]]

    def keep(self, place: int, pixels: NDArray[np.uint8]) -> None:
        """Keeps an image, (H, W, C), if it fits."""
        if place < len(self._known):
            self._pixels[place] = pixels
            self._known[place] = True
