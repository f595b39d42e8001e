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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self, cast

from distgan.bounds import check_unpacked, open_regular
from distgan.errors import UserError
from distgan.storage.storage import translate_errors

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

_BLOCK = 512

_END_MARK = 2 * _BLOCK

# Headers that describe the member after them: pax (x, g, X) and GNU's long names (L, K).
_EXTENSIONS = (b"x", b"g", b"X", b"L", b"K")

_MOST_EXTENSION_BYTES = 2**20

_ZSTD = b"\x28\xb5\x2f\xfd"

_CHUNK_BYTES = 2**20

_MOST_BYTES = 2**50  # of an archive that is read from beginning to end

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
        data = file.read(self._block(self.size))  # type: ignore[attr-defined]
        if _DIGITS.search(data):
            raise tarfile.ReadError("a header extension holds hundreds of digits in a row")
        if isinstance(file, _Bounded):
            file.unread(data)
        else:
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
def opened_tar(path: Path, where: str, most_bytes: int) -> Iterator[tarfile.TarFile]:
    """Opens a tar file, plain or compressed by gzip, bzip2 or xz, that may unpack to `most_bytes`.

    Raises UserError, naming the archive as `where`, for more, and what `tarfile` raises for a damaged file.
    """
    with open_regular(path) as file, _unpacker(file) as unpacked:
        bounded = cast(IO[bytes], _Bounded(unpacked, where, most_bytes))
        with tarfile.open(fileobj=bounded, mode="r:", tarinfo=_BoundedHeader) as archive:
            yield archive


def each_file(
    path: Path, where: str, wanted: Callable[[str], bool], most_file_bytes: int
) -> Iterator[tuple[str, bool, bytes]]:
    """The members of a tar file, plain or compressed, but folders: name, whether it is a regular file, its bytes.

    There are bytes of regular files whose names are `wanted`. An archive of any length is read, from beginning to end,
    as long as it does not unpack at an implausible ratio.

    Raises UserError, naming the archive as `where`, for a damaged one, one that does not end with its end mark, and
    for a wanted member of more than `most_file_bytes`.
    """
    packed = path.stat().st_size
    try:
        with open_regular(path) as file, _unpacker(file) as unpacked:
            bounded = _Bounded(unpacked, where, _MOST_BYTES)
            with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:", tarinfo=_BoundedHeader) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined] # else all stay in memory
                    check_unpacked(where, packed, member.offset_data + member.size, _MOST_BYTES)
                    if member.isdir():
                        continue
                    is_file = member.isreg() and not member.issparse()
                    is_read = is_file and wanted(member.name)
                    if is_read and not 0 <= member.size <= most_file_bytes:
                        raise UserError(f"{where}: {member.name}: has {member.size:,} bytes; it is no photograph")
                    yield member.name, is_file, _content(archive, member) if is_read else b""
                if any(bounded.last) or len(bounded.last) < _BLOCK or not _only_zeros(bounded):
                    raise tarfile.ReadError(f"the header at byte {archive.offset} is no end mark, or more follows it")
    except _DAMAGED as error:
        raise UserError(f"{where}: not a whole tar file: {error}; get or write it again") from None


def unpack(path: Path, to: Path, where: str, most_bytes: int) -> None:
    """Writes a file compressed by gzip, bzip2 or xz to the disk, unpacked.

    Raises UserError, naming the file as `where`, for a damaged one, and one that unpacks to more than `most_bytes` or
    at an implausible ratio.
    """
    packed, found = path.stat().st_size, 0
    try:
        with open_regular(path) as file, _unpacker(file) as unpacked, to.open("wb") as written:
            while chunk := unpacked.read(_CHUNK_BYTES):
                found += len(chunk)
                check_unpacked(where, packed, found, most_bytes)
                with translate_errors(str(to.parent)):
                    written.write(chunk)
                    written.flush()
    except (*_DAMAGED, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's
            raise
        raise UserError(f"{where}: cannot be unpacked: {error}; get or write it again") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    data = b"" if file is None else file.read()
    if len(data) != member.size:
        raise tarfile.ReadError(f"it is cut off within the member {member.name!r:.100}")
    return data


def _only_zeros(file: _Bounded) -> bool:
    """Whether at least one block follows, and only zeros do."""
    first = chunk = file.read(_CHUNK_BYTES)
    while chunk:
        if any(chunk):
            return False
        chunk = file.read(_CHUNK_BYTES)
    return len(first) >= _BLOCK


def is_compressed(path: Path) -> bool:
    """Whether a file begins as those do that gzip, bzip2, xz or zstd write."""
    with open_regular(path) as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", _ZSTD))


def _unpacker(file: IO[bytes]) -> IO[bytes]:
    start = file.read(6)
    file.seek(0)
    if start.startswith(_ZSTD):
        raise tarfile.ReadError("it is compressed by zstd; gzip, bzip2 and xz can be read")
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(file))
    return cast(IO[bytes], lzma.LZMAFile(file)) if start.startswith(b"\xfd7zXZ\0") else file


class _Bounded:
    """A file that can be read up to `most_bytes`."""

    def __init__(self, file: IO[bytes], name: str, most_bytes: int) -> None:
        self._file, self._name, self._most_bytes = file, name, most_bytes
        self.last = b""  # what was read last
        self._ahead = b""  # what was read and given back

    def tell(self) -> int:
        return self._file.tell() - len(self._ahead)

    def read(self, size: int) -> bytes:
        self._check(self.tell() + size)
        found, self._ahead = self._ahead[:size], self._ahead[size:]
        with self._damage():
            self.last = found + self._file.read(size - len(found))
            return self.last

    def unread(self, data: bytes) -> None:
        """Gives back what was read last: a compressed file is unpacked anew from its beginning to seek backwards."""
        self._ahead = data

    def seek(self, position: int) -> int:
        self._ahead = b""
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
