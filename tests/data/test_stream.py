"""Batches from real shards on disk: the same for every worker, memory limit and start, and errors instead of hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from distgan.data import blocks as blocks_module
from distgan.data.blocks import BlockReader
from distgan.data.index import Block, Index
from distgan.data.order import Order
from distgan.data.stream import BatchStream, Group
from distgan.errors import UserError
from distgan.storage.storage import Storage
from toy_data import numbers_of, open_stream, pack_numbered

pytestmark = pytest.mark.timeout(30)

SAMPLES = 1500
SAMPLE_BYTES = 16 * 16


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    folder = tmp_path_factory.mktemp("numbered")
    pack_numbered(folder, SAMPLES, shard_kb=700)
    return Storage.open(str(folder))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("distgan")] == []


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "_FIRST_WAIT_S", 0.0)


def take(stream: BatchStream, count: int) -> list[list[Group]]:
    with closing(stream):
        return [stream.next() for _ in range(count)]


def equal(one: list[list[Group]], two: list[list[Group]]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for batches in zip(one, two, strict=True)
        for a, b in zip(*batches, strict=True)
    )


def test_images_and_labels_are_the_orders(storage: Storage) -> None:
    index = Index.load(storage)
    order = Order(index, 0, 4, 2)
    assert len(index.blocks) > 2
    batches = take(open_stream(storage), 3)
    for number, groups in enumerate(batches):
        assert len(groups) == 2
        for group, part in enumerate(groups):
            assert part.images.dtype == torch.uint8
            assert part.images.shape == (8, 1, 16, 16)
            assert part.labels.dtype == torch.int64
            assert part.labels.tolist() == [sample % 3 for sample in numbers_of(part)]
            samples = order.group_samples(number, group, 2, 16)
            assert part.labels.tolist() == index.labels[samples].tolist()


def test_an_epoch_shows_every_image_once(storage: Storage) -> None:
    seen = [
        number for groups in take(open_stream(storage, batch_size=60), 25) for g in groups for number in numbers_of(g)
    ]
    assert sorted(seen) == list(range(SAMPLES))
    assert seen != sorted(seen)


@pytest.mark.parametrize("memory_bytes", [0, 1, 100 * SAMPLE_BYTES, 900 * SAMPLE_BYTES, 10**9])
def test_the_memory_limit_changes_no_batch(storage: Storage, memory_bytes: int) -> None:
    count = 60  # 2.4 epochs
    wanted = take(open_stream(storage, batch_size=60, memory_bytes=0), count)
    assert equal(take(open_stream(storage, batch_size=60, memory_bytes=memory_bytes), count), wanted)


class CountingReader(BlockReader):
    """Records the blocks that are read."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, Index.load(storage))
        self.asked: list[int] = []

    def read(self, blocks: Sequence[Block]) -> list[bytes]:
        self.asked += [block.number for block in blocks]
        return super().read(blocks)


def test_samples_in_memory_are_not_read_again(storage: Storage) -> None:
    reader = CountingReader(storage)
    with closing(open_stream(storage, reader=reader, batch_size=60, memory_bytes=10**9)) as stream:
        for _ in range(28):  # an epoch, and what was read ahead
            stream.next()
        after_an_epoch = len(reader.asked)
        for _ in range(50):
            stream.next()
        assert len(reader.asked) == after_an_epoch


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("memory_bytes", [0, 900 * SAMPLE_BYTES, 10**9])
@pytest.mark.parametrize("start", [0, 7])
def test_any_number_of_decoder_threads_gives_the_same_batches(
    storage: Storage, threads: int, memory_bytes: int, start: int
) -> None:
    count = 60  # 2.4 epochs
    wanted = take(open_stream(storage, batch_size=60), start + count)[start:]
    options: dict[str, Any] = {
        "batch_size": 60,
        "start_batch": start,
        "memory_bytes": memory_bytes,
        "prefetch_batches": 5,
    }
    assert equal(take(open_stream(storage, **options, decode_threads=threads), count), wanted)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_any_number_of_workers_gets_the_same_groups(storage: Storage, workers: int) -> None:
    whole = take(open_stream(storage, groups=range(4), num_groups=4, memory_bytes=10**6), 6)
    parts: list[list[Group]] = [[] for _ in range(6)]
    for rank in range(workers):
        groups = range(4 * rank // workers, 4 * (rank + 1) // workers)
        own = take(open_stream(storage, groups=groups, num_groups=4, memory_bytes=0), 6)
        for batch, found in zip(parts, own, strict=True):
            batch += found
    assert equal(parts, whole)


@pytest.mark.parametrize("start", [1, 7, 24, 25, 49])
def test_a_resume_continues_with_the_same_batches(storage: Storage, start: int) -> None:
    uninterrupted = take(open_stream(storage, batch_size=60), start + 3)
    assert equal(take(open_stream(storage, batch_size=60, start_batch=start), 3), uninterrupted[start:])


def test_a_far_start_and_another_seed(storage: Storage) -> None:
    first = take(open_stream(storage, start_batch=10**9), 2)
    assert len(numbers_of(first[0][0])) == 8
    other = take(open_stream(storage, start_batch=10**9, seed=1), 2)
    assert not equal(first, other)


@pytest.mark.parametrize("samples", [4, 7, 33])
@pytest.mark.parametrize("memory_bytes", [0, 3 * SAMPLE_BYTES, 10**9])
def test_data_sets_smaller_than_a_batch(tmp_path: Path, samples: int, memory_bytes: int) -> None:
    pack_numbered(tmp_path, samples)
    stream = open_stream(Storage.open(str(tmp_path)), batch_size=64, memory_bytes=memory_bytes)
    numbers = [number for groups in take(stream, 3) for group in groups for number in numbers_of(group)]
    assert len(numbers) == 3 * 64
    assert set(numbers) == set(range(samples))


class FaultyReader(BlockReader):
    """A reader whose first answers to each request are damaged."""

    def __init__(self, storage: Storage, faults: int, damage: str) -> None:
        super().__init__(storage, Index.load(storage))
        self._left: dict[int, int] = {}
        self._faults, self._damage = faults, damage
        self._lock = threading.Lock()

    def _read_ranges(self, blocks: Sequence[Block]) -> list[bytes]:
        return [self._spoil(block, data) for block, data in zip(blocks, super()._read_ranges(blocks), strict=True)]

    def _spoil(self, block: Block, data: bytes) -> bytes:
        with self._lock:
            left = self._left.setdefault(block.number, self._faults)
            self._left[block.number] = left - 1
        if left <= 0:
            return data
        middle = len(data) // 2
        return {
            "short": data[:-1],
            "empty": b"",
            "flipped": data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :],
            "shifted": data[1:] + b"\0",
        }[self._damage]


@pytest.mark.parametrize("damage", ["short", "empty", "flipped", "shifted"])
def test_damaged_answers_are_read_again(storage: Storage, damage: str) -> None:
    wanted = take(open_stream(storage, batch_size=60), 30)
    assert equal(take(open_stream(storage, reader=FaultyReader(storage, 3, damage), batch_size=60), 30), wanted)


def test_a_block_that_stays_damaged_is_named_each_time(storage: Storage) -> None:
    with closing(open_stream(storage, reader=FaultyReader(storage, 1000, "flipped"))) as stream:
        for _ in range(3):
            with pytest.raises(UserError, match=r"shard-0000\d\.tar: bytes \d+ to \d+ do not match .*read 4 times"):
                stream.next()


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_damaged_shard_is_named(tmp_path: Path, harm: str) -> None:
    pack_numbered(tmp_path, 300, shard_kb=128)
    shard = tmp_path / "shard-00001.tar"
    data = bytearray(shard.read_bytes())
    if harm == "gone":
        shard.unlink()
    else:
        data[len(data) // 2] ^= 1
        shard.write_bytes(data if harm == "flipped" else data[: len(data) // 2])
    message = "not found" if harm == "gone" else r"bytes \d+ to \d+ do not match the index"
    with (
        closing(open_stream(Storage.open(str(tmp_path)), batch_size=300)) as stream,
        pytest.raises(UserError, match=rf"shard-00001\.tar: {message}"),
    ):
        stream.next()


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_numbered(tmp_path, 20)

    def refuse(*_: object) -> None:
        raise ValueError("it has 8x8 pixels, not 16x16")

    monkeypatch.setattr("distgan.data.dataset.decode_pixels", refuse)
    with (
        closing(open_stream(Storage.open(str(tmp_path)))) as stream,
        pytest.raises(
            UserError, match=r"shard-00000\.tar: sample (\d+) at byte \d+ \(0*\1\.png\) cannot be used: it has 8"
        ),
    ):
        stream.next()


def test_the_consumer_gets_bugs_too(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = BlockReader(storage, Index.load(storage))
    monkeypatch.setattr(reader, "read", lambda blocks: 1 / 0)
    with closing(open_stream(storage, reader=reader)) as stream:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                stream.next()


class BlockedReader(BlockReader):
    """A reader that blocks until it is released."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage, Index.load(storage))
        self.entered, self.released = threading.Event(), threading.Event()

    def read(self, blocks: Sequence[Block]) -> list[bytes]:
        self.entered.set()
        assert self.released.wait(20)
        return super().read(blocks)


def test_close_while_a_download_runs(storage: Storage) -> None:
    reader = BlockedReader(storage)
    stream = open_stream(storage, reader=reader)
    assert reader.entered.wait(10)
    closing_thread = threading.Thread(target=stream.close)
    closing_thread.start()
    reader.released.set()
    closing_thread.join(10)
    assert not closing_thread.is_alive()
    stream.close()
    with pytest.raises(AssertionError, match="closed"):
        stream.next()


def test_close_at_once_and_while_the_queue_is_full(storage: Storage) -> None:
    open_stream(storage).close()
    stream = open_stream(storage, prefetch_batches=1)
    stream.next()
    while not stream._queue.full():
        threading.Event().wait(0.01)
    stream.close()


def test_neighboring_blocks_are_one_request(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.load(storage)
    requests: list[tuple[str, int, int]] = []
    read_ranges = Storage.read_ranges

    def note(self: Storage, asked: Sequence[tuple[str, int, int]]) -> list[bytes]:
        requests.extend(asked)
        return read_ranges(self, asked)

    monkeypatch.setattr(Storage, "read_ranges", note)
    blocks = [*reversed(index.blocks)]
    found = BlockReader(storage, index).read(blocks)
    assert all(block.holds(data) for block, data in zip(blocks, found, strict=True))
    assert len(requests) == len(index.header.shards) < len(blocks)
