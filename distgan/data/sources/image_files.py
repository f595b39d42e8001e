"""Reads image files to pixels, and the base class of sources whose images are files."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from distgan.bounds import read_bytes
from distgan.data.images import (
    JPEG_FORMATS,
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

MOST_FILE_BYTES = 2**29


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
