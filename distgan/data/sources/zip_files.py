"""Files inside a zip file, which is not unpacked to the disk."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from distgan.data.sources.file_bytes import FileBytes
from distgan.errors import UserError

# A member's header in a zip file: its first bytes, and its length without name and extra field.
_LOCAL_HEADER, _LOCAL_HEADER_BYTES = b"PK\x03\x04", 30

_USUAL_EXTRA_BYTES = 64  # after a member's name, where its directory entry does not say

_ENCRYPTED = 0x1

_MOST_BYTES = 2**26  # of one image file

# What zipfile raises for a file that is no zip file, or a damaged one.
_NO_ZIP = (
    zipfile.BadZipFile, OSError, ValueError, LookupError, EOFError, NotImplementedError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip


class ZipFiles:
    """Files of a zip file by number.

    Only names and offsets are kept, since every process of `pack` holds them: the 202,599 entries of CelebA's archive
    take 100 MB as `zipfile.ZipInfo`.

    Attributes:
        names: in order.
    """

    def __init__(self, file: FileBytes, members: Sequence[tuple[str, zipfile.ZipInfo]]) -> None:
        """`members` are files with the names to have. Raises UserError for files that cannot be read from there."""
        self._file = file
        ordered = sorted(members, key=lambda member: member[0])
        for (name, _), (following, _) in pairwise(ordered):
            if name == following:
                raise UserError(f"{file}: {name} is in it twice; unpack the zip file and give the folder")
        self.names = [name for name, _ in ordered]
        self._members = np.array([_location(file, info) for _, info in ordered], np.int64).reshape(-1, 6)

    def location(self, number: int) -> str:
        """A file's name, for messages."""
        return f"{self._file}: {self.names[number]}"

    def read(self, number: int) -> bytes:
        """A file's bytes. Raises UserError if they cannot be read, or do not match the archive's directory."""
        try:
            return self._bytes(number)
        except (OSError, struct.error, zlib.error) as error:
            where = self.location(number)
            raise UserError(f"{where}: cannot be read from the zip file: {error}; get the file again") from None

    def _bytes(self, number: int) -> bytes:
        offset, stored, size, checksum, method, name_bytes = self._members[number].tolist()
        usual = _LOCAL_HEADER_BYTES + name_bytes + _USUAL_EXTRA_BYTES
        found = self._file.read(offset, usual + stored)
        start = _LOCAL_HEADER_BYTES + sum(struct.unpack_from("<HH", found, 26))
        data = found[start : start + stored]
        if start > usual:
            data = self._file.read(offset + start, stored)
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(size, 1))
        if found[:4] != _LOCAL_HEADER or len(data) != size or zlib.crc32(data) != checksum:
            raise zlib.error("its checksum differs")
        return data


@contextmanager
def opened_zip(file: FileBytes) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file. Raises UserError for whatever zipfile raises, then or in the block."""
    try:
        with file.opened() as opened, zipfile.ZipFile(opened) as archive:
            yield archive
    except UserError:
        raise
    except _NO_ZIP as error:
        raise UserError(f"{file}: not a readable zip file: {error}; get it again") from None


def _location(file: FileBytes, info: zipfile.ZipInfo) -> tuple[int, int, int, int, int, int]:
    where = f"{file}: {info.filename}"
    if info.flag_bits & _ENCRYPTED:
        raise UserError(f"{where}: encrypted; unpack the zip file and give the folder")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UserError(f"{where}: its compression is not supported; unpack the zip file and give the folder")
    if not 0 <= info.header_offset < 2**62:
        raise UserError(f"{where}: lies outside the zip file; get it again")
    if max(info.file_size, info.compress_size) > _MOST_BYTES:
        raise UserError(f"{where}: has {info.file_size:,} bytes, more than {_MOST_BYTES:,}; it is no photograph")
    name_bytes = len(info.orig_filename.encode(errors="replace"))
    return info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type, name_bytes
