"""Reads blocks of shards, checks and retries them, and caches them on the node's disk for all its workers."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from distgan.data.index import Block, Index
from distgan.data.reads import ReadCounts
from distgan.errors import UserError
from distgan.storage.local_files import locked
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import Storage
from distgan.storage.storage_errors import translate_errors
from distgan.text import command

_ATTEMPTS = 4

_FIRST_WAIT_S = 0.2


class BlockReader:
    """Reads blocks by concurrent range requests, through a cache if there is one. `storage` has the index.

    Attributes:
        retry: the policy for unavailable storage.
        counts: of what was read.
    """

    def __init__(
        self,
        storage: Storage,
        index: Index,
        cache: BlockCache | None = None,
        retry: Retry | None = None,
        counts: ReadCounts | None = None,
    ) -> None:
        self._storage, self._index, self._cache = storage, index, cache
        self._shards = index.shard_folder(storage)
        self.retry = retry or Retry()
        self.counts = counts or ReadCounts()

    def read(self, blocks: Sequence[Block]) -> list[bytes]:
        """The bytes of each block, checked. Raises UserError, naming the shard, if they stay wrong."""
        if self._cache is None:
            return self._download(blocks)
        downloaded = 0

        def download(absent: Sequence[Block]) -> list[bytes]:
            nonlocal downloaded
            downloaded = len(absent)
            return self._download(absent)

        found = self._cache.read(self._index.hash, blocks, download)
        self.counts.add(blocks=len(blocks), cached_blocks=len(blocks) - downloaded)
        return found

    def without_retry(self) -> BlockReader:
        """A reader that does not wait for storage that is unavailable."""
        return BlockReader(self._storage, self._index, self._cache, NO_RETRY, self.counts)

    def bytes_before(self, shard: int, offset: int, count: int) -> bytes:
        """The `count` bytes of a shard before `offset`, unchecked: they belong to no block."""
        return self._shards.read_ranges([(self._index.header.shards[shard].name, offset - count, offset)])[0]

    def _download(self, blocks: Sequence[Block]) -> list[bytes]:
        found: dict[int, bytes] = {}
        for attempt in range(_ATTEMPTS):
            missing = [block for block in blocks if block.number not in found]
            if not missing:
                break
            if attempt:
                time.sleep(_FIRST_WAIT_S * 2**attempt)
            for block, data in zip(missing, self._read_ranges(missing), strict=True):
                if block.holds(data):
                    found[block.number] = data
        for block in blocks:
            if block.number not in found:
                raise UserError(
                    f"{self._shards.url}/{self._index.header.shards[block.shard].name}: bytes {block.start} to "
                    f"{block.end} do not match the index (read {_ATTEMPTS} times); check the shard with "
                    f"`{command('data', 'verify', self._storage.url)}` and upload it again"
                )
        return [found[block.number] for block in blocks]

    def _read_ranges(self, blocks: Sequence[Block]) -> list[bytes]:
        """One request for each run of adjacent blocks."""
        runs: list[list[Block]] = []
        for block in sorted(blocks, key=lambda each: each.number):
            last = runs[-1][-1] if runs else None
            if last is not None and last.shard == block.shard and last.number + 1 == block.number:
                runs[-1].append(block)
            else:
                runs.append([block])
        shards = self._index.header.shards
        wanted = [(shards[run[0].shard].name, run[0].start, run[-1].end) for run in runs]
        answers = self.retry(lambda: self._shards.read_ranges(wanted))
        self.counts.add(bytes=sum(map(len, answers)))
        data = {
            block.number: answer[block.start - run[0].start : block.end - run[0].start]
            for run, answer in zip(runs, answers, strict=True)
            for block in run
        }
        return [data[block.number] for block in blocks]


Download = Callable[[Sequence[Block]], list[bytes]]

_log = logging.getLogger(__name__)


class BlockCache:
    """Blocks as files, named by the data's hash and their number; the least recently used are deleted first.

    Files appear by an atomic rename and are checked when they are read, so a killed writer does no harm. If the
    folder cannot be used, one warning is logged, and blocks are downloaded.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes, self._warned = folder, max_bytes, False
        with self._warn_on_error():
            folder.mkdir(parents=True, exist_ok=True)

    def read(self, data_hash: str, blocks: Sequence[Block], download: Download) -> list[bytes]:
        """The blocks' bytes; `download` is called once, for those that are not cached."""
        found: dict[int, bytes] = {}
        with ExitStack() as locks:
            absent = []
            # The same order in every worker, so that two never wait for each other.
            for block in sorted(blocks, key=lambda each: each.number):
                path = self._path(data_hash, block)
                data = self._take(path, block)
                if data is None:
                    with self._warn_on_error():
                        self._folder.mkdir(parents=True, exist_ok=True)  # anew, where it was deleted
                        locks.enter_context(locked(path.with_suffix(".lock")))
                    data = self._take(path, block)
                if data is None:
                    absent.append(block)
                else:
                    found[block.number] = data
            if absent:
                for block, data in zip(absent, download(absent), strict=True):
                    with self._warn_on_error():
                        self._put(self._path(data_hash, block), data)
                    found[block.number] = data
        if absent:
            with self._warn_on_error():
                self._evict()
        return [found[block.number] for block in blocks]

    @contextmanager
    def _warn_on_error(self) -> Iterator[None]:
        """Turns the first disk error into a warning, and ignores the others."""
        try:
            with translate_errors(f"data.cache_dir={self._folder}"):
                yield
        except UserError as error:
            if not self._warned:
                _log.warning("%s; training continues without the cache", error)
            self._warned = True

    def _path(self, data_hash: str, block: Block) -> Path:
        return self._folder / f"{data_hash[:32]}-{block.number:08d}.block"

    def _take(self, path: Path, block: Block) -> bytes | None:
        data = None
        with self._warn_on_error(), suppress(FileNotFoundError):
            data = path.read_bytes()
            os.utime(path)
        if data is None:
            return None
        return data if block.holds(data) else None

    def _put(self, path: Path, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _evict(self) -> None:
        with locked(self._folder / "evict.lock"):
            files = []
            for path in self._folder.glob("*.block"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                files.append((status.st_mtime, status.st_size, path))
            excess = sum(size for _, size, _ in files) - self._max_bytes
            for _, size, path in sorted(files):
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
                excess -= size
