"""Parts of a file by their place in it, on the disk or at a URL."""

from __future__ import annotations

import io
import os
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from distgan.bounds import check_regular
from distgan.data.sources.addresses import RemoteFile
from distgan.storage.local_files import OwnedFolder
from distgan.storage.storage import translate_errors

_MOST_COPIED_BYTES = 2**32

_BUFFER_BYTES = 2**20

_MOST_READ_BYTES = 2**30  # at once: a directory of ten million files


class FileBytes:
    """A file that several processes read in any order; pickled copies read the same file.

    A file at a URL of at most 4 GiB is copied to a temporary folder, below TMPDIR, that is deleted with this object. Of
    a larger one each part is a request.
    """

    def __init__(self, file: RemoteFile, where: str) -> None:
        """`where` names the file in messages. Raises UserError for what is no file, or cannot be reached or copied."""
        self._file, self._where = file, where
        self._path: Path | None = None
        self._size = 0  # of a file at a URL
        if file.storage.local_path is not None:
            self._path = file.storage.local_path / file.name
            with translate_errors(where):
                check_regular(self._path)
            return
        size = file.storage.facts(file.name).size
        if size is None or size <= _MOST_COPIED_BYTES:
            with translate_errors("a temporary folder"):
                folder = OwnedFolder("distgan-file-")
            weakref.finalize(self, folder.remove)
            self._path = folder.path / "file"
            file.copy_to(self._path, _MOST_COPIED_BYTES)
        else:
            self._size = size

    def __str__(self) -> str:
        return self._where

    def read(self, start: int, count: int) -> bytes:
        """So many bytes from `start`; fewer if the file ends before. Raises OSError as `open` does."""
        if count <= 0:
            return b""
        if self._path is None:
            return self._file.read_range(start, start + count)
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(min(count, max(os.fstat(file.fileno()).st_size - start, 0)))

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file for reading and seeking."""
        if self._path is not None:
            with self._path.open("rb") as file:
                yield file
        else:
            with _Reader(_Parts(self, self._size), _BUFFER_BYTES) as reader:
                yield cast(BinaryIO, reader)


class _Parts(io.RawIOBase):
    """A file at a URL by requests of its parts."""

    def __init__(self, file: FileBytes, size: int) -> None:
        self._file, self._size, self._at = file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence], 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(self._at, min(len(buffer), self._size - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Reader(io.BufferedReader):
    """Reads no more than any directory of a zip file has at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_READ_BYTES:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes")
        return super().read(size)
