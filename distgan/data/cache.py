"""A cache of blocks on a node's disk that all its workers share: one of them downloads, the others wait."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from filelock import FileLock

from distgan.data.index import Block
from distgan.data.storage_errors import translate_errors

Download = Callable[[Sequence[Block]], list[bytes]]


class BlockCache:
    """Whole blocks as files, named by the data's hash and their number; the least recently used go first.

    A file appears by an atomic rename and is checked by whoever reads it (`BlockReader`), so a killed writer leaves
    nothing wrong behind. Raises UserError where the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        with self._errors():
            folder.mkdir(parents=True, exist_ok=True)

    def read(self, data_hash: str, blocks: Sequence[Block], download: Download) -> list[bytes]:
        """The blocks' bytes, from here or by one call of `download` for those that nobody has."""
        found: dict[int, bytes] = {}
        with self._errors(), ExitStack() as locks:
            absent = []
            # In one order everywhere, so that two workers never wait for each other.
            for block in sorted(blocks, key=lambda each: each.number):
                path = self._path(data_hash, block)
                data = self._take(path, block)
                if data is None:
                    locks.enter_context(FileLock(path.with_suffix(".lock")))
                    data = self._take(path, block)
                if data is None:
                    absent.append(block)
                else:
                    found[block.number] = data
            if absent:
                for block, data in zip(absent, download(absent), strict=True):
                    self._put(self._path(data_hash, block), data)
                    found[block.number] = data
        if absent:
            with self._errors():
                self._evict()
        return [found[block.number] for block in blocks]

    def _errors(self) -> AbstractContextManager[None]:
        return translate_errors(f"data.cache_dir={self._folder}")

    def _path(self, data_hash: str, block: Block) -> Path:
        return self._folder / f"{data_hash[:32]}-{block.number:08d}.block"

    def _take(self, path: Path, block: Block) -> bytes | None:
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
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
        with FileLock(self._folder / "evict.lock"):
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
