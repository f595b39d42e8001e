"""Image bytes to uint8 arrays and back."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:  # the processes that encode need no configuration
    from distgan.config.schema import Resize

Encoding = Literal["png", "jpg", "webp"]
EXTENSIONS = ("png", "jpg", "jpeg", "webp")
_MODES = {1: "L", 3: "RGB"}
_FILTERS: dict[Resize, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MOST_PIXELS = 2**26
_GREY_MODES = {"1", "L", "LA", "I;16", "I;16B", "I;16L"}

# What Pillow raises for bytes that are no image, or only a part or a parody of one.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, AssertionError, struct.error, Image.DecompressionBombError)


def why_unreadable(error: Exception) -> str:
    """What an `UNREADABLE` error says about the bytes."""
    return "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)


def native_channels(image: Image.Image) -> int:
    """1 for a grey image, with or without transparency, 3 for any other."""
    return 1 if image.mode in _GREY_MODES else 3


def to_pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """uint8 (H, W) for one channel, (H, W, 3) for three; transparency is dropped.

    Raises ValueError for whole or real numbers of 32 bits, whose white is unknown.
    """
    if image.mode in {"I", "F"}:
        raise ValueError("its pixels have 32 bits; store it with 8 or 16")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image if image.mode == _MODES[channels] else image.convert(_MODES[channels]))


def decode_image(data: bytes, image_size: int | None, channels: int, resize: Resize = "none") -> NDArray[np.uint8]:
    """Bytes of a PNG, JPEG or WebP image to uint8 (channels, image_size, image_size); without a size, of its own.

    Grey and colour are converted. Raises ValueError where they are no image, or one of another size and `resize`
    is "none". The size is read before the pixels are, so that an image of absurd size takes neither time nor memory.
    """
    if data[:2] == b"\xff\xd8":
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, image_size, resize)
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", fastdct=False)
    else:
        try:
            image = Image.open(io.BytesIO(data), formats=("PNG", "WEBP"))
        except UNREADABLE as error:
            raise ValueError(f"not a whole PNG, JPEG or WebP image: {why_unreadable(error)}") from None
        width, height = image.size
        _check_size(width, height, image_size, resize)
        try:
            pixels = to_pixels(image, channels).reshape(height, width, channels)
        except UNREADABLE as error:
            raise ValueError(f"not a whole PNG, JPEG or WebP image: {why_unreadable(error)}") from None
    if image_size is not None and (height, width) != (image_size, image_size):
        pixels = resize_image(pixels, image_size, channels, resize)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_size(width: int, height: int, image_size: int | None, resize: Resize) -> None:
    if image_size is not None and resize == "none" and (width, height) != (image_size, image_size):
        raise ValueError(f"it has {width}x{height} pixels, not {image_size}x{image_size}")
    if width * height > _MOST_PIXELS:
        raise ValueError(f"it has {width}x{height} pixels, more than {_MOST_PIXELS:,}")


def encode_image(pixels: NDArray[np.uint8], encoding: Encoding) -> bytes:
    """uint8 (height, width, 1 or 3) to the bytes of an image file; PNG and WebP without loss, JPEG at quality 95."""
    if encoding == "jpg":
        data: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), 95, "GRAY" if pixels.shape[2] == 1 else "RGB", "444"
        )
        return data
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if encoding == "png":
        image.save(buffer, "PNG", compress_level=6)
    else:
        image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def resize_image(
    pixels: NDArray[np.uint8], image_size: int, channels: int, resize: Resize = "bilinear"
) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, C) to (image_size, image_size, channels), aspect ratio not kept."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(pixels).convert(_MODES[channels])
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), _FILTERS[resize])
    return np.asarray(image).reshape(image_size, image_size, channels)
