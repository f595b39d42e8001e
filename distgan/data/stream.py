"""Batches of images in the data's fixed order, read and decoded ahead of the training loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

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


class BatchStream:
    """The batches of one worker, from `start_batch` on, without end.

    The blocks of a window are downloaded while the window before is in use. Samples are decoded when a batch needs
    them, and kept as far as `memory_bytes` allows; once all are kept, a batch is a gather.
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
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="distgan-read")
        self._queue: queue.Queue[list[Group] | BaseException] = queue.Queue(prefetch_batches)
        self._stopped = threading.Event()
        self._next = start_batch
        self._thread = threading.Thread(target=self._run, name="distgan-batches", daemon=True)
        self._thread.start()

    def next(self) -> list[Group]:
        """This worker's groups of the next batch. Raises UserError, at every call, if the data cannot be read."""
        assert not self._stopped.is_set(), "the stream is closed"
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)  # the only producer has ended, so there is room
            raise item
        return item

    def close(self) -> None:
        """Stops reading, and any waiting for unavailable storage; returns when the threads have ended."""
        self._stopped.set()
        self._dataset.reader.retry.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.05)
        self._pool.shutdown(wait=True)

    def _run(self) -> None:
        try:
            if self._gpu is not None:
                torch.cuda.set_device(self._gpu)  # pinned memory belongs to a device
            while not self._stopped.is_set():
                self._queue.put(self._batch(self._next))
                self._next += 1
        except BaseException as error:  # noqa: BLE001 - passed to the consumer, which raises it
            if not self._stopped.is_set():
                self._queue.put(error)

    def _batch(self, batch: int) -> list[Group]:
        groups = []
        for group in self._groups:
            parts = [self._stream_part(number, batch) for number in self._order.group_streams(group, self._num_groups)]
            images = torch.from_numpy(np.concatenate([images for images, _, _ in parts]))
            labels = torch.from_numpy(np.concatenate([labels for _, labels, _ in parts]))
            if self._gpu is not None:
                images, labels = images.pin_memory(), labels.pin_memory()
            groups.append(Group(images, labels, sum(bad_samples for _, _, bad_samples in parts)))
        return groups

    def _stream_part(self, number: int, batch: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
        """A batch's images and labels of one stream, and how many bad samples are met for the first time."""
        stream = self._order.streams[number]
        position = batch * self._share
        samples = stream.samples(position, self._share)
        absent = np.unique(samples[~self._decoded.has(samples)])
        fresh: dict[int, NDArray[np.uint8]] = {}
        if len(absent):
            data = self._window_bytes(number, position)
            for sample in absent:
                fresh[int(sample)] = self._decode(int(sample), data)
        images = self._decoded.gather(samples, fresh)
        shown = [self._substitutes.get(sample, sample) for sample in samples.tolist()]
        first_epoch = samples[: max(0, len(stream) - position)]
        bad_samples = sum(sample in self._substitutes for sample in first_epoch.tolist())
        return images, self._index.labels[shown], bad_samples

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
                self._windows[number, *each] = self._pool.submit(self._download, number, *each)
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
            if not self._decoded.has(np.arange(part.first, part.stop)).all()
        ]
        if not blocks:
            return {}
        return {block.number: data for block, data in zip(blocks, self._dataset.reader.read(blocks), strict=True)}

    def _decode(self, sample: int, data: dict[int, bytes]) -> NDArray[np.uint8]:
        block = self._dataset.block_of(sample)
        start = self._substitutes.get(sample, sample)
        shown, image = self._dataset.decode_or_next(start, block, data[block.number])
        if shown != sample:
            self._substitutes[sample] = shown
        return image


class _DecodedSamples:
    """Decoded samples of ascending ranges [first, stop), as many as fit into `memory_bytes`."""

    def __init__(self, shape: tuple[int, int, int], ranges: Sequence[tuple[int, int]], memory_bytes: int) -> None:
        self._shape = shape
        sizes = [stop - first for first, stop in ranges]
        self._firsts = np.array([first for first, _ in ranges])
        # A sample's place is its number minus the preceding numbers that are in no range.
        self._left_out = self._firsts - np.cumsum([0, *sizes[:-1]])
        capacity = min(sum(sizes), memory_bytes // int(np.prod(self._shape)))
        # Untouched pages take no memory, so this grows with the decoded samples.
        self._images = np.empty((capacity, *self._shape), np.uint8)
        self._known = np.zeros(capacity, bool)

    def has(self, samples: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the samples are in memory."""
        places = self._positions(samples)
        known = np.zeros(len(samples), bool)
        inside = places < len(self._known)
        known[inside] = self._known[places[inside]]
        return known

    def gather(self, samples: NDArray[np.int64], fresh: dict[int, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The samples' images (N, C, H, W); `fresh` has those that are not kept. Keeps as many of them as fit."""
        places = self._positions(samples)
        if not fresh:
            return self._images[places]
        images = np.empty((len(samples), *self._shape), np.uint8)
        for row, (sample, place) in enumerate(zip(samples.tolist(), places.tolist(), strict=True)):
            if sample not in fresh:
                images[row] = self._images[place]
                continue
            images[row] = fresh[sample]
            if place < len(self._known):
                self._images[place] = fresh[sample]
                self._known[place] = True
        return images

    def _positions(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        places: NDArray[np.int64] = samples - self._left_out[np.searchsorted(self._firsts, samples, side="right") - 1]
        return places
