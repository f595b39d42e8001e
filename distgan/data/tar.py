"""Reads untrusted tar files: the members of an uncompressed one, and compressed ones within bounds.

Python's tarfile takes a damaged header or a hole for the end of the archive. Here an archive ends with its end mark,
two blocks of zeros, and only zeros may follow.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self, cast

from distgan.bounds import open_regular
from distgan.errors import UserError

_BLOCK = 512

_END_MARK = 2 * _BLOCK

# Headers that describe the member after them: pax (x, g, X) and GNU's long names (L, K).
_EXTENSIONS = (b"x", b"g", b"X", b"L", b"K")

_MOST_EXTENSION_BYTES = 2**20

_DIGITS = re.compile(rb"\d{300}")

# What tarfile raises for a damaged archive, errors of its parsing of numbers and names included.
_DAMAGED = (tarfile.TarError, ArithmeticError, LookupError, ValueError, OSError, EOFError, RecursionError)


class _BoundedHeader(tarfile.TarInfo):
    """A header that refuses extensions too long for tarfile to parse."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and not 0 <= header.size <= _MOST_EXTENSION_BYTES:
            raise tarfile.ReadError(f"a header extension has {header.size:,} bytes")
        return header

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Refuses long runs of digits: Python before 3.11.10 takes quadratic time for them (CVE-2024-6232)."""
        file = archive.fileobj
        assert file is not None
        at = file.tell()
        if _DIGITS.search(file.read(self.size)):
            raise tarfile.ReadError("a header extension holds hundreds of digits in a row")
        file.seek(at)
        return super()._proc_pax(archive)  # type: ignore[misc,no-any-return]


def tar_members(data: bytes, name: str) -> list[tarfile.TarInfo]:
    """All members of the tar file `name`, whose bytes are `data`.

    Raises UserError, naming the byte, for another kind of file, a damaged header, bytes after the end mark (a second
    archive, or data after a hole), and a file without an end mark.
    """
    members: list[tarfile.TarInfo] = []
    at = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", tarinfo=_BoundedHeader) as archive:
            for member in archive:
                if member.size < 0 or member.offset_data < at:
                    raise tarfile.ReadError(f"the member {member.name!r:.100} has an impossible size")
                at = member.offset_data
                if member.isreg() and not member.issparse():
                    at += member.size
                if at > len(data):
                    raise tarfile.ReadError(f"it is cut off within the member {member.name!r:.100}")
                members.append(member)
            at = archive.offset
    except _DAMAGED as error:
        raise _damaged(name, f"{error}, at byte {min(at, len(data))} of {len(data)}") from None
    if any(data[at : at + _BLOCK]):
        problem = "is damaged" if at + _BLOCK <= len(data) else "is cut off"
        raise _damaged(name, f"the header at byte {at} of {len(data)} {problem}, after {len(members)} members")
    following = re.compile(rb"[^\0]").search(data, at)
    if following is not None:
        raise _damaged(
            name,
            f"it ends at byte {at}, after {len(members)} members, and more follows at byte {following.start()}: a "
            f"hole, or archives joined",
        )
    if len(data) < at + _END_MARK:
        raise _damaged(name, f"it is cut off at byte {len(data)}: after {len(members)} members the end mark is missing")
    return members


@contextmanager
def opened_tar(path: Path, most_bytes: int) -> Iterator[tarfile.TarFile]:
    """Opens a tar file, plain or compressed by gzip, bzip2 or xz, that may unpack to `most_bytes`.

    Raises UserError for more, and what `tarfile` raises for a damaged file.
    """
    with open_regular(path) as file:
        start = file.read(6)
        file.seek(0)
        unpacked = _unpacker(start, file)
        bounded = cast(IO[bytes], _Bounded(unpacked, str(path), most_bytes))
        with unpacked, tarfile.open(fileobj=bounded, mode="r:", tarinfo=_BoundedHeader) as archive:
            yield archive


def _unpacker(start: bytes, file: IO[bytes]) -> IO[bytes]:
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(file))
    return cast(IO[bytes], lzma.LZMAFile(file)) if start.startswith(b"\xfd7zXZ\0") else file


class _Bounded:
    """A file that can be read up to `most_bytes`."""

    def __init__(self, file: IO[bytes], name: str, most_bytes: int) -> None:
        self._file, self._name, self._most_bytes = file, name, most_bytes
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        self._check(self._file.tell() + size)
        with self._damage():
            return self._file.read(size)

    def seek(self, position: int) -> int:
        self._check(position)
        with self._damage():
            return self._file.seek(position)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turns errors of decompression into tarfile's; disk errors, which have an errno, pass."""
        try:
            yield
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise tarfile.ReadError(str(error)) from None

    def _check(self, position: int) -> None:
        if position > self._most_bytes:
            raise UserError(f"{self._name}: unpacks to more than {self._most_bytes:,} bytes; give another archive")


def _damaged(name: str, problem: str) -> UserError:
    return UserError(f"{name}: not a whole, uncompressed tar file: {problem}; get or write it again")
