"""Reads image files by number, from a folder or from inside a zip file."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distgan.bounds import read_bytes
from distgan.data.files import HIDDEN, is_hidden, is_system, kind_of_file, walk_files
from distgan.data.images import (
    JPEG_FORMATS,
    SUFFIXES,
    UNREADABLE,
    jpeg_pixels,
    native_channels,
    native_pixels,
    open_image,
    recovered_jpegs,
    unreadable_reason,
)
from distgan.data.sources.base import Source
from distgan.errors import UserError

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # none of those for which Pillow runs a program, as EPS

# A member's header in a zip file: its first bytes, and its length without name and extra field.
_LOCAL_HEADER, _LOCAL_HEADER_BYTES = b"PK\x03\x04", 30

_ENCRYPTED = 0x1

_MOST_BYTES = 2**26  # of one image file in a zip

MOST_FILE_BYTES = 2**29

# What zipfile raises for a file that is no zip file, or a damaged one.
_NO_ZIP = (
    zipfile.BadZipFile, OSError, ValueError, LookupError, EOFError, NotImplementedError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip


def image_pixels(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decodes an image file to uint8 (H, W) or (H, W, C), turned upright as its EXIF data say.

    C is 2 for gray and 4 for color with transparency, 3 for color without. A JPEG that libjpeg only warns of is
    counted (`images.recovered_jpegs`). Raises UserError, naming `where`, for bytes that are no image.
    """
    try:
        with open_image(data, _FORMATS) as opened:
            image: Image.Image = opened
            if opened.format in JPEG_FORMATS and opened.mode in {"L", "RGB"}:
                pixels = jpeg_pixels(data, native_channels(opened))
                if pixels is None:
                    opened.load()
                    recovered_jpegs.value += 1
                else:
                    image = Image.fromarray(pixels[:, :, 0] if opened.mode == "L" else pixels)
                    image.info = opened.info
            image.load()
            with suppress(*UNREADABLE, LookupError, TypeError):  # a damaged EXIF block
                ImageOps.exif_transpose(image, in_place=True)
            return native_pixels(image)
    except UNREADABLE as error:
        raise UserError(f"{where}: not a readable image: {unreadable_reason(error)}") from None


def read_file(path: Path, where: str) -> bytes:
    """The bytes of an image file. Raises UserError, naming `where`, if it cannot be read."""
    try:
        return read_bytes(path, MOST_FILE_BYTES)
    except OSError as error:
        raise UserError(f"{where}: not a readable image: {error.strerror or error}") from None


def read_image(path: Path, where: str) -> NDArray[np.uint8]:
    """Reads an image file; see `image_pixels`."""
    return image_pixels(read_file(path, where), where)


class FileSource(Source):
    """A source whose images are files, which `--encoding keep` can store as they are."""

    @abstractmethod
    def file(self, number: int) -> bytes:
        """The bytes of an image's file. Raises UserError if they cannot be read."""

    @abstractmethod
    def label(self, number: int) -> int:
        """The label of an image, −1 for none."""

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return image_pixels(self.file(number), self.name(number)), self.label(number)


class ImageFiles(Protocol):
    """Image files, ordered by name; `left_out` counts the other files beside them, by reason."""

    @property
    def names(self) -> list[str]: ...

    @property
    def left_out(self) -> Counter[str]: ...

    def location(self, number: int) -> str:
        """The path of an image, for messages."""
        ...

    def read(self, number: int) -> bytes:
        """The bytes of an image. Raises UserError if they cannot be read."""
        ...


class FolderImages:
    """The image files directly in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        files, self.left_out = walk_files(path, below=False)
        self.names = [file.name for file in files if _is_image(file.name)]
        self.left_out += Counter(_reason(file.name) for file in files if not _is_image(file.name))

    def location(self, number: int) -> str:
        return str(self._path / self.names[number])

    def read(self, number: int) -> bytes:
        return read_file(self._path / self.names[number], self.location(number))


class ZipImages:
    """The image files in the folders called `folder` inside a zip file, which is not unpacked to the disk.

    Only names and offsets are kept, since every process of `pack` holds them: the 202,599 entries of CelebA's archive
    take 100 MB as `zipfile.ZipInfo`.
    """

    def __init__(self, path: Path, folder: str) -> None:
        """Raises UserError for a file that is no zip file, or has images that cannot be read from it."""
        self._path = path
        with opened_zip(path) as archive:
            inside = [info for info in archive.infolist() if _lies_in(info, folder)]
        members = [info for info in inside if _is_image(_name(info))]
        self.left_out = Counter(_reason(_name(info)) for info in inside if not _is_image(_name(info)))
        members.sort(key=_name)
        for info, following in pairwise(members):
            if _name(info) == _name(following):
                raise UserError(f"{path}: {_name(info)} is in it twice; unpack the zip file and give the folder")
        self.names = [_name(info) for info in members]
        self._members = np.array([_member_location(path, info) for info in members], np.int64).reshape(-1, 5)

    def location(self, number: int) -> str:
        return f"{self._path}: {self.names[number]}"

    def read(self, number: int) -> bytes:
        try:
            return self._bytes(number)
        except (OSError, struct.error, zlib.error) as error:
            where = self.location(number)
            raise UserError(f"{where}: cannot be read from the zip file: {error}; get the file again") from None

    def _bytes(self, number: int) -> bytes:
        """A member's content. Raises zlib.error if it does not match the archive's directory."""
        offset, stored, size, checksum, method = self._members[number].tolist()
        with self._path.open("rb") as file:
            file.seek(offset)
            header = file.read(_LOCAL_HEADER_BYTES)
            name_bytes, extra_bytes = struct.unpack_from("<HH", header, 26)
            file.seek(name_bytes + extra_bytes, os.SEEK_CUR)
            data = file.read(stored)
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(size, 1))
        if header[:4] != _LOCAL_HEADER or len(data) != size or zlib.crc32(data) != checksum:
            raise zlib.error("its checksum differs")
        return data


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip file. Raises UserError for whatever zipfile raises, then or in the block."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UserError:
        raise
    except _NO_ZIP as error:
        raise UserError(f"{path}: not a readable zip file: {error}; get it again") from None


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def _reason(name: str) -> str:
    return HIDDEN if is_hidden(name) else kind_of_file(name)


def _lies_in(info: zipfile.ZipInfo, folder: str) -> bool:
    *folders, name = info.filename.split("/")
    return folders[-1:] == [folder] and name != "" and not any(map(is_system, folders))


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.rpartition("/")[2]


def _member_location(path: Path, info: zipfile.ZipInfo) -> tuple[int, int, int, int, int]:
    where = f"{path}: {info.filename}"
    if info.flag_bits & _ENCRYPTED:
        raise UserError(f"{where}: encrypted; unpack the zip file and give the folder")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UserError(f"{where}: its compression is not supported; unpack the zip file and give the folder")
    if not 0 <= info.header_offset < 2**62:
        raise UserError(f"{where}: lies outside the zip file; get it again")
    if max(info.file_size, info.compress_size) > _MOST_BYTES:
        raise UserError(f"{where}: has {info.file_size:,} bytes, more than {_MOST_BYTES:,}; it is no photograph")
    return info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type
