"""The block cache that the workers of a node share."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distgan.data.blocks import BlockCache, BlockReader
from distgan.data.index import Block, Index
from distgan.errors import UserError
from distgan.storage.storage import Storage
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    pack_numbered(tmp_path / "data", 120, size=64, shard_kb=1024)
    return Storage.open(str(tmp_path / "data"))


class Download:
    """Reads blocks from the shards, and records which."""

    def __init__(self, storage: Storage) -> None:
        self._reader = BlockReader(storage, Index.load(storage))
        self.blocks: list[int] = []

    def __call__(self, blocks: Sequence[Block]) -> list[bytes]:
        self.blocks += [block.number for block in blocks]
        return self._reader.read(blocks)


def all_hold(blocks: Sequence[Block], found: Sequence[bytes]) -> bool:
    return all(block.holds(data) for block, data in zip(blocks, found, strict=True))


def test_a_block_is_downloaded_once(storage: Storage, tmp_path: Path) -> None:
    index, download = Index.load(storage), Download(storage)
    blocks = index.blocks[::-1]
    assert len(blocks) >= 2
    for _ in range(2):  # as another worker, or a later session, would
        cache = BlockCache(tmp_path / "cache", 10**9)
        assert all_hold(blocks, cache.read(index.hash, blocks, download))
    assert sorted(download.blocks) == list(range(len(blocks)))
    assert BlockCache(tmp_path / "cache", 10**9).read(index.hash, [], download) == []


def test_data_sets_do_not_share_blocks(storage: Storage, tmp_path: Path) -> None:
    index, download = Index.load(storage), Download(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)
    cache.read(index.hash, index.blocks[:1], download)
    cache.read("f" * 64, index.blocks[:1], download)
    assert download.blocks == [0, 0]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_downloaded_again(storage: Storage, tmp_path: Path, damage: str) -> None:
    index, download = Index.load(storage), Download(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)
    cache.read(index.hash, index.blocks, download)
    file = sorted((tmp_path / "cache").glob("*.block"))[1]
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes({"flipped": bytes(data), "cut": bytes(data[:50]), "empty": b""}[damage])
    download.blocks.clear()
    for _ in range(2):
        assert all_hold(index.blocks, cache.read(index.hash, index.blocks, download))
    assert download.blocks == [1]


def cached_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.block"))


def test_the_size_is_bounded_and_the_least_recently_used_go(storage: Storage, tmp_path: Path) -> None:
    index, download = Index.load(storage), Download(storage)
    first, second = index.blocks[:2]
    both = first.end - first.start + second.end - second.start
    folder = tmp_path / "cache"
    cache = BlockCache(folder, both - 1)
    cache.read(index.hash, [first], download)
    (file,) = folder.glob("*.block")
    os.utime(file, (1, 1))
    assert all_hold([second], cache.read(index.hash, [second], download))
    assert [path.name[-14:] for path in folder.glob("*.block")] == ["00000001.block"]
    assert cached_bytes(folder) < both

    tiny = BlockCache(tmp_path / "tiny", 1)
    assert all_hold(index.blocks, tiny.read(index.hash, index.blocks, download))
    assert cached_bytes(tmp_path / "tiny") == 0
    assert list((tmp_path / "tiny").glob("*.part")) == []


def test_a_read_makes_a_block_recent(storage: Storage, tmp_path: Path) -> None:
    index, download = Index.load(storage), Download(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)
    cache.read(index.hash, index.blocks[:1], download)
    (file,) = (tmp_path / "cache").glob("*.block")
    os.utime(file, (1, 1))
    cache.read(index.hash, index.blocks[:1], download)
    assert file.stat().st_mtime > 1


def _read_all(url: str, folder: str, barrier: threading.Barrier, results: multiprocessing.Queue[list[int]]) -> None:
    storage = Storage.open(url)
    index, download = Index.load(storage), Download(storage)
    barrier.wait(30)
    found = BlockCache(Path(folder), 10**9).read(index.hash, index.blocks, download)
    assert all_hold(index.blocks, found)
    results.put(download.blocks)


def test_two_processes_download_once(storage: Storage, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = storage.url, str(tmp_path / "cache"), barrier, results
    processes = [context.Process(target=_read_all, args=arguments, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    downloaded = sorted(number for _ in processes for number in results.get(timeout=40))
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    assert downloaded == list(range(len(Index.load(storage).blocks)))


def test_threads_with_overlapping_wishes_do_not_wait_for_each_other(storage: Storage, tmp_path: Path) -> None:
    index, download = Index.load(storage), Download(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)
    forwards, backwards = index.blocks, index.blocks[::-1]
    with ThreadPoolExecutor(8) as pool:
        wishes = [forwards, backwards] * 10
        found = list(pool.map(lambda blocks: cache.read(index.hash, blocks, download), wishes, timeout=30))
    assert all(all_hold(blocks, data) for blocks, data in zip(wishes, found, strict=True))
    assert sorted(download.blocks) == list(range(len(index.blocks)))


def test_a_failed_download_leaves_nothing_and_no_lock(storage: Storage, tmp_path: Path) -> None:
    index, download = Index.load(storage), Download(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)

    def fail(blocks: Sequence[Block]) -> list[bytes]:
        raise UserError("the store is gone")

    with pytest.raises(UserError, match="the store is gone"):
        cache.read(index.hash, index.blocks, fail)
    assert cached_bytes(tmp_path / "cache") == 0
    assert all_hold(index.blocks, cache.read(index.hash, index.blocks, download))


def test_a_reader_uses_its_cache(storage: Storage, tmp_path: Path) -> None:
    index = Index.load(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)
    wanted = BlockReader(storage, index).read(index.blocks)
    assert BlockReader(storage, index, cache).read(index.blocks) == wanted
    for shard in index.header.shards:
        storage.delete(shard.name)
    assert BlockReader(storage, index, cache).read(index.blocks) == wanted


def test_a_folder_that_cannot_be_used_is_named_once_and_done_without(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    index = Index.load(storage)
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        caplog.clear()
        cache = BlockCache(folder, 1)
        for _ in range(2):
            assert all_hold(index.blocks, cache.read(index.hash, index.blocks, Download(storage)))
        (warning,) = caplog.messages
        assert warning.startswith(f"data.cache_dir={folder}: a ")
        assert warning.endswith("training continues without the cache")


def test_a_full_disk_is_done_without(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index, download = Index.load(storage), Download(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "replace", full)
        assert all_hold(index.blocks, cache.read(index.hash, index.blocks, download))
    assert ["no space left on the disk" in warning for warning in caplog.messages] == [True]
    assert list((tmp_path / "cache").glob("*.part")) == []
    for _ in range(2):  # there is space again
        cache.read(index.hash, index.blocks, download)
    assert sorted(download.blocks) == sorted(2 * list(range(len(index.blocks))))


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_keeps_blocks_all_the_same(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    def refused(*_: object) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(fcntl, "flock", refused)
    index, download = Index.load(storage), Download(storage)
    cache = BlockCache(tmp_path / "cache", 10**9)
    for _ in range(2):
        assert all_hold(index.blocks, cache.read(index.hash, index.blocks, download))
    assert sorted(download.blocks) == list(range(len(index.blocks)))


def test_a_cache_that_works_says_nothing(storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = Index.load(storage)
    cache = BlockCache(tmp_path / "cache", 1)
    for _ in range(2):
        cache.read(index.hash, index.blocks, Download(storage))
    assert caplog.messages == []
