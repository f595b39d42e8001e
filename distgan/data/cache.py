"""A cache of blocks on a node's disk that all its workers share: one of them downloads, the others wait."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from distgan.data.index import Block
from distgan.data.storage_errors import translate_errors
from distgan.data.whole_files import locked
from distgan.errors import UserError

Download = Callable[[Sequence[Block]], list[bytes]]

_log = logging.getLogger(__name__)


class BlockCache:
    """Whole blocks as files, named by the data's hash and their number; the least recently used go first.

    A file appears by an atomic rename and is checked by whoever reads it (`BlockReader`), so a killed writer leaves
    nothing wrong behind. Where the folder cannot be used, a warning says so once, and blocks are downloaded.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes, self._warned = folder, max_bytes, False
        with self._on_without():
            folder.mkdir(parents=True, exist_ok=True)

    def read(self, data_hash: str, blocks: Sequence[Block], download: Download) -> list[bytes]:
        """The blocks' bytes, from here or by one call of `download` for those that nobody has."""
        found: dict[int, bytes] = {}
        with ExitStack() as locks:
            absent = []
            # In one order everywhere, so that two workers never wait for each other.
            for block in sorted(blocks, key=lambda each: each.number):
                path = self._path(data_hash, block)
                data = self._take(path, block)
                if data is None:
                    with self._on_without():
                        locks.enter_context(locked(path.with_suffix(".lock")))
                    data = self._take(path, block)
                if data is None:
                    absent.append(block)
                else:
                    found[block.number] = data
            if absent:
                for block, data in zip(absent, download(absent), strict=True):
                    with self._on_without():
                        self._put(self._path(data_hash, block), data)
                    found[block.number] = data
        if absent:
            with self._on_without():
                self._evict()
        return [found[block.number] for block in blocks]

    @contextmanager
    def _on_without(self) -> Iterator[None]:
        """Turns errors of the disk in the block into one warning."""
        try:
            with translate_errors(f"data.cache_dir={self._folder}"):
                yield
        except UserError as error:
            if not self._warned:
                _log.warning("%s; training goes on without the cache", error)
            self._warned = True

    def _path(self, data_hash: str, block: Block) -> Path:
        return self._folder / f"{data_hash[:32]}-{block.number:08d}.block"

    def _take(self, path: Path, block: Block) -> bytes | None:
        data = None
        with self._on_without(), suppress(FileNotFoundError):
            data = path.read_bytes()
            os.utime(path)
        if data is None:
            return None
        return data if block.holds(data) else None

    def _put(self, path: Path, data: bytes) -> None:
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
