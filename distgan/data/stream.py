"""Batches of images in the data's fixed order, read and decoded ahead of the training loop."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distgan.data.batch_memory import BatchMemory, DecodedSamples
from distgan.data.dataset import Dataset
from distgan.data.index import Block
from distgan.data.kept import Kept
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
class _PlannedBatch:
    """The images of all groups, one after the other, of which some are still being decoded.

    `position` is that of the first sample of each stream, `kept` the number of samples that memory had.
    """

    position: int
    images: Tensor
    samples: NDArray[np.int64]
    decoding: list[Future[None]]
    kept: int


# A sample, its row in the batch, its place in memory, its block and the block's bytes.
_Job = tuple[int, int, int, Block, bytes]


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
        kept: Kept[DecodedSamples] | None = None,
    ) -> None:
        """Batches for a GPU lie in pinned memory, from which it copies while the host goes on.

        `kept` has the decoded samples of an earlier stream of this process, which is closed.
        """
        self._gpu = gpu
        self._dataset, self._index, self._order = dataset, dataset.index, order
        self._groups, self._num_groups, self._batch_size = groups, num_groups, batch_size
        self._share = batch_size // len(order.streams)
        self._numbers = [number for group in groups for number in order.group_streams(group, num_groups)]
        ranges = tuple((order.streams[number].first, order.streams[number].stop) for number in sorted(self._numbers))
        self._decoded = (kept or Kept()).get(
            (*dataset.images_key, ranges, memory_bytes), lambda: DecodedSamples(dataset.shape, ranges, memory_bytes)
        )
        self._memory = BatchMemory((len(self._numbers) * self._share, *self._decoded.image_shape), prefetch_batches)
        self._substitutes = self._decoded.substitutes
        self._windows: dict[tuple[int, int, int], Future[dict[int, bytes]]] = {}
        # By stream: the windows of its last batch, as (epoch, window), and the bytes of their blocks.
        self._in_use: dict[int, tuple[list[tuple[int, int]], dict[int, bytes]]] = {}
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
        count = len(planned.samples)
        self._dataset.reader.counts.add(samples=count, kept_samples=planned.kept)
        return self._finish(planned)

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
        position = batch * self._share
        samples = np.concatenate(
            [self._order.streams[number].samples(position, self._share) for number in self._numbers]
        )
        images = self._memory.take(pinned=self._gpu is not None)
        rows = images.numpy()
        places = self._decoded.places(samples)
        kept = self._decoded.has(places)
        blocks: dict[int, bytes] = {}
        if not kept.all():
            for at, number in enumerate(self._numbers):
                if not kept[at * self._share : (at + 1) * self._share].all():
                    blocks |= self._window_bytes(number, position)
            # Meanwhile the decoders may have kept more; a block is not downloaded when all of its samples are kept.
            kept = self._decoded.has(places)
        self._decoded.copy(places, kept, rows)
        jobs = self._jobs(samples, places, np.flatnonzero(~kept), blocks)
        size = -(-len(jobs) // self._decode_threads)
        decoding = [
            self._decoders.submit(self._decode, jobs[at : at + size], rows) for at in range(0, len(jobs), size or 1)
        ]
        return _PlannedBatch(position, images.permute(0, 3, 1, 2), samples, decoding, int(kept.sum()))

    def _jobs(
        self, samples: NDArray[np.int64], places: NDArray[np.int64], rows: NDArray[np.int64], data: dict[int, bytes]
    ) -> list[_Job]:
        """What is to be decoded into the rows; `data` are the bytes of blocks by number."""
        absent = samples[rows]
        blocks = [self._index.blocks[number] for number in self._dataset.block_numbers(absent).tolist()]
        return [
            (sample, row, place, block, data[block.number])
            for sample, row, place, block in zip(
                absent.tolist(), rows.tolist(), places[rows].tolist(), blocks, strict=True
            )
        ]

    def _decode(self, jobs: list[_Job], rows: NDArray[np.uint8]) -> None:
        for sample, row, place, block, data in jobs:
            start = self._substitutes.get(sample, sample)
            shown = self._dataset.decode_or_next(start, block, data, rows[row])
            if shown != sample:
                self._substitutes[sample] = shown
            self._decoded.keep(place, rows[row])

    def _finish(self, batch: _PlannedBatch) -> list[Group]:
        """The groups, once the images are decoded."""
        size = len(batch.samples) // len(self._groups)
        shown, bad_samples = batch.samples, [0] * len(self._groups)
        if self._substitutes:
            shown = np.array([self._substitutes.get(sample, sample) for sample in batch.samples.tolist()])
            met = (shown != batch.samples) & self._first_seen(batch.position)
            bad_samples = met.reshape(-1, size).sum(axis=1).tolist()
        labels = torch.from_numpy(self._index.labels[shown])
        if self._gpu is not None:
            labels = labels.pin_memory()
        return [
            Group(batch.images[at : at + size], labels[at : at + size], bad)
            for at, bad in zip(range(0, len(batch.samples), size), bad_samples, strict=True)
        ]

    def _first_seen(self, position: int) -> NDArray[np.bool_]:
        """Which samples of the batch no earlier batch has: those of the first epoch of their streams."""
        places = np.arange(position, position + self._share)
        return np.concatenate([places < len(self._order.streams[number]) for number in self._numbers])

    def _window_bytes(self, number: int, position: int) -> dict[int, bytes]:
        """Bytes of the blocks of all windows that a batch spans, by block number. Starts the next window's download."""
        stream = self._order.streams[number]
        epoch, window, _ = stream.locate(position)
        last_epoch, last_window, _ = stream.locate(position + self._share - 1)
        wanted = [(epoch, window)]
        while wanted[-1] != (last_epoch, last_window):
            wanted.append(self._following(number, *wanted[-1]))
        if number in self._in_use and self._in_use[number][0] == wanted:
            return self._in_use[number][1]
        ahead = self._following(number, *wanted[-1])
        for key in [key for key in self._windows if key[0] == number and key[1:] not in (*wanted, ahead)]:
            del self._windows[key]
        for each in (*wanted, ahead):
            if (number, *each) not in self._windows:
                self._windows[number, *each] = self._readers.submit(self._download, number, *each)
        blocks: dict[int, bytes] = {}
        for each in wanted:
            blocks |= self._windows[number, *each].result()
        self._in_use[number] = wanted, blocks
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
