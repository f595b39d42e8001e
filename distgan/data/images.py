"""Image bytes to uint8 arrays and back, and images of any shape to one size."""

from __future__ import annotations

import io
import re
import struct
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from distgan.config.schema import Resize


Encoding = Literal["png", "jpg", "webp"]

# Red, green and blue, 0 to 255.
Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)

# Images in shards and in evaluated folders, and Pillow's names of their formats; a GIF is its first frame.
EXTENSIONS = ("png", "jpg", "jpeg", "jfif", "webp", "gif", "bmp")

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

# Of image files that `data pack` reads.
SUFFIXES = (*(f".{extension}" for extension in EXTENSIONS), ".tif", ".tiff")

_ANY_KIND = "PNG, JPEG, WebP, GIF or BMP"

_MODES = {1: "L", 3: "RGB"}

_FILTERS: dict[Resize, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

MOST_PIXELS = 89_478_485  # Pillow's own limit, beyond which it warns

# Standard progressive files have 6 to 14 scans; a decoder visits all pixels for each.
_MOST_SCANS, _MOST_PIXELS_OF_ALL_SCANS = 100, 2**31

JPEG_FORMATS = ("JPEG", "MPO")  # as Pillow calls them

_GRAY_MODES = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L"}

# What Pillow raises for bytes that are no image, or a damaged one.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, AssertionError, struct.error, Image.DecompressionBombError)

# A marker of a JPEG file outside of entropy-coded data, where FF 00 is a byte and FF D0 to D7 are restarts.
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")

_START_OF_SCAN, _END_OF_IMAGE, _WITHOUT_LENGTH = 0xDA, 0xD9, {0x01, 0xD8}

_SEQUENTIAL = {0xC0, 0xC1}

# Segments before the first scan of a common file: tables, application data, comments.
_COMMON_SEGMENTS = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}

# Pillow warns of large images, EXIF and palettes. Faults that matter are errors here.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _RefusedError(ValueError):
    """An image that is rejected before it is decoded: its size is wrong, or decoding takes too long."""


class _Count:
    """Counts images of a kind in this process."""

    def __init__(self) -> None:
        self.value = 0


recovered_jpegs = _Count()  # that libjpeg warns of; they are accepted, as by Pillow

stretched_images = _Count()  # to a square from one side more than `_NEARLY_SQUARE` times the other

_NEARLY_SQUARE = 1.1


def open_image(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    """Reads an image's header and checks its size and a JPEG's scans. Raises one of `UNREADABLE`."""
    image = Image.open(io.BytesIO(data), formats=formats)
    check_pixels(*image.size)
    if data[:2] == b"\xff\xd8":
        _check_scans(data, image.width * image.height)
    return image


def check_pixels(width: int, height: int) -> None:
    """Raises ValueError for an image that is too large to decode."""
    if width * height > MOST_PIXELS:
        raise _RefusedError(f"it has {width}x{height} pixels, more than {MOST_PIXELS:,}")


def jpeg_pixels(data: bytes, channels: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8] | None:
    """uint8 (H, W, channels) of a faultless JPEG, in `out` if given; None for others, which Pillow may still decode."""
    colors = "GRAY" if channels == 1 else "RGB"
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colors, fastdct=False, buffer=out)
    except ValueError:
        return None
    return pixels


def _check_scans(data: bytes, pixels: int) -> None:
    """Raises ValueError for a JPEG of so many scans that decoding it takes minutes."""
    if _has_one_scan(data):
        return
    most = min(_MOST_SCANS, _MOST_PIXELS_OF_ALL_SCANS // max(1, pixels))
    # Metadata and trailing bytes may contain these two bytes too, so the markers are counted only if there are many.
    if data.count(b"\xff\xda") > most and _scans(data, most) > most:
        raise _RefusedError(f"it is a JPEG of more than {most} scans, which take too long to decode")


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan of a sequential JPEG has all components, so that a decoder reads no other; else False.

    A header in any other form than the common one gives False.
    """
    place, components = 2, 0
    while place + 10 <= len(data) and data[place] == 0xFF:
        code = data[place + 1]
        if code == _START_OF_SCAN:
            return data[place + 4] == components
        if code in _SEQUENTIAL and not components:
            components = data[place + 9]
        elif code not in _COMMON_SEGMENTS:
            break
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return False


def _scans(data: bytes, most: int) -> int:
    """The number of scans of a JPEG file, at most `most` + 1."""
    scans = place = 0
    while scans <= most and (marker := _MARKER.search(data, place)):
        code, place = marker[1][0], marker.end()
        if code == _END_OF_IMAGE:
            break
        if code not in _WITHOUT_LENGTH:
            place += int.from_bytes(data[place : place + 2])
        scans += code == _START_OF_SCAN
    return scans


def unreadable_reason(error: Exception) -> str:
    """The reason in an `UNREADABLE` error."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MOST_PIXELS:,} pixels"
    return "unknown format" if isinstance(error, UnidentifiedImageError) else str(error)


def parse_color(text: str) -> Color:
    """`white`, `black` or `#rrggbb`. Raises ValueError for anything else."""
    named = {"white": "#ffffff", "black": "#000000"}.get(text, text)
    if not re.fullmatch("#[0-9a-fA-F]{6}", named):
        raise ValueError(f"{text!r} is not white, black or #rrggbb")
    red, green, blue = bytes.fromhex(named[1:])
    return red, green, blue


def native_channels(image: Image.Image) -> int:
    """1 for a gray image, with or without transparency, 3 for any other."""
    return 1 if image.mode in _GRAY_MODES else 3


def native_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 with the image's own channels: (H, W) or (H, W, 3), with transparency (H, W, 2) or (H, W, 4).

    Raises ValueError as `to_pixels` does.
    """
    image = _with_8_bits(image)
    mode = _MODES[native_channels(image)] + ("A" if image.has_transparency_data else "")
    return np.asarray(image if image.mode == mode else image.convert(mode))


def to_pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """uint8 (H, W) for one channel, (H, W, 3) for three; transparency is composed on white.

    Raises ValueError for 32-bit pixels, whose white is unknown, and for indexed colors without a palette.
    """
    image = composed(_with_8_bits(image), WHITE)
    return np.asarray(image if image.mode == _MODES[channels] else image.convert(_MODES[channels]))


def composed(image: Image.Image, background: Color) -> Image.Image:
    """The image on a background of one color; unchanged if it has no transparency."""
    if not image.has_transparency_data:
        return image
    if image.mode == "La":
        image = image.convert("LA")
    ground = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _with_8_bits(image: Image.Image) -> Image.Image:
    """The image, loaded, with 8 bits a channel. The transparent shade of 16-bit gray, if any, becomes an alpha channel.

    Raises ValueError if its colors cannot be known.
    """
    if image.mode in {"I", "F"}:
        raise ValueError("its pixels have 32 bits; store it with 8 or 16")
    image.load()
    if image.mode == "P" and image.palette is None:
        raise ValueError("its colors are numbers, and no palette says which they are")
    if not image.mode.startswith("I;16"):
        return image
    wide, transparent = np.asarray(image), image.info.get("transparency")
    gray = Image.fromarray((wide >> 8).astype(np.uint8))
    if transparent is None:
        return gray
    return Image.merge("LA", (gray, Image.fromarray(np.where(wide == transparent, 0, 255).astype(np.uint8))))


def decode_image(data: bytes, image_size: int | None, channels: int, resize: Resize = "none") -> NDArray[np.uint8]:
    """`decode_pixels` as uint8 (channels, image_size, image_size)."""
    return np.ascontiguousarray(decode_pixels(data, image_size, channels, resize).transpose(2, 0, 1))


def decode_pixels(
    data: bytes,
    image_size: int | None,
    channels: int,
    resize: Resize = "none",
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Decodes an image of `FORMATS` to uint8 (image_size, image_size, channels); without `image_size`, of its own size.

    Gray and color are converted, transparency is composed on white. A JPEG that libjpeg only warns of is decoded and
    counted (`recovered_jpegs`). With `out`, of that shape and contiguous, the result is written there and returned.

    Raises ValueError for bytes that are no image, and for another size if `resize` is "none"; the size is checked
    before pixels are decoded, so a huge image takes neither time nor memory.
    """
    pixels = _clean_jpeg(data, image_size, channels, resize, out) if data[:2] == b"\xff\xd8" else None
    if pixels is None:
        try:
            image = open_image(data, FORMATS)
            width, height = image.size
            _check_size(width, height, image_size, resize)
            pixels = to_pixels(image, channels).reshape(height, width, channels)
        except _RefusedError:
            raise
        except UNREADABLE as error:
            raise ValueError(f"not a whole {_ANY_KIND} image: {unreadable_reason(error)}") from None
        recovered_jpegs.value += image.format in JPEG_FORMATS
    height, width = pixels.shape[:2]
    if image_size is not None and (height, width) != (image_size, image_size):
        pixels = resize_image(pixels, image_size, channels, resize)
    if out is None or pixels is out:
        return pixels
    out[...] = pixels
    return out


def _clean_jpeg(
    data: bytes, image_size: int | None, channels: int, resize: Resize, out: NDArray[np.uint8] | None
) -> NDArray[np.uint8] | None:
    """Decodes a JPEG by libjpeg; None if it warns. Raises ValueError for a wrong size, or too much work."""
    if out is not None and _has_one_scan(data):  # a larger image does not fit into `out` and is not decoded
        pixels = jpeg_pixels(data, channels, out)
        if pixels is not None and pixels.shape == out.shape:
            return out
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height, image_size, resize)
    check_pixels(width, height)
    _check_scans(data, width * height)
    return jpeg_pixels(data, channels)


def _check_size(width: int, height: int, image_size: int | None, resize: Resize) -> None:
    if image_size is not None and resize == "none" and (width, height) != (image_size, image_size):
        raise _RefusedError(f"it has {width}x{height} pixels, not {image_size}x{image_size}")


def kept_encoding(data: bytes, pixels: NDArray[np.uint8]) -> Encoding | None:
    """The encoding of an image file that a run decodes to exactly `pixels`, uint8 (H, W, 1 or 3); None for another.

    None too for other formats than those of `Encoding`, for color where `pixels` are gray, for transparency, and for a
    JPEG that libjpeg warns of.
    """
    encoding, channels, before = encoding_of(data), pixels.shape[2], recovered_jpegs.value
    try:
        image = open_image(data, FORMATS)
        if encoding is None or native_channels(image) > channels or image.has_transparency_data:
            return None
        same = np.array_equal(decode_image(data, pixels.shape[0], channels), pixels.transpose(2, 0, 1))
        return encoding if same and recovered_jpegs.value == before else None
    except UNREADABLE:  # another size
        return None
    finally:
        recovered_jpegs.value = before


def encoding_of(data: bytes) -> Encoding | None:
    """The encoding of an image file by its first bytes; None for other formats."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def encode_image(pixels: NDArray[np.uint8], encoding: Encoding) -> bytes:
    """Encodes uint8 (height, width, 1 or 3): PNG and WebP losslessly, JPEG at quality 95."""
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
    """Resizes uint8 (H, W) or (H, W, C) to (image_size, image_size, channels), ignoring the aspect ratio."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(pixels).convert(_MODES[channels])
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), _FILTERS[resize])
    return np.asarray(image).reshape(image_size, image_size, channels)


# How an image that is not square becomes one: stretched, cropped to its centered square, or padded.
Fit = Literal["stretch", "crop", "pad"]


def fit_image(
    pixels: NDArray[np.uint8],
    image_size: int,
    channels: int,
    fit: Fit = "stretch",
    crop: int | None = None,
    background: Color = WHITE,
) -> NDArray[np.uint8]:
    """Converts uint8 (H, W) or (H, W, 1 to 4), as a source gives it, to (image_size, image_size, channels).

    In this order: transparency is composed on the background, so that hidden colors do not show; the centered square
    of `crop` pixels a side is cut out, if given; `fit` makes the image square; it is resized bilinearly. An image whose
    shape is clearly changed is counted (`stretched_images`).

    Raises ValueError if the image is smaller than `crop`.
    """
    flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    image = composed(Image.fromarray(flat), background)
    if crop is not None:
        if min(image.size) < crop:
            raise ValueError(f"it has {image.width}x{image.height} pixels, fewer than --crop {crop}")
        image = _center_square(image, crop)
    if fit == "crop":
        image = _center_square(image, min(image.size))
    elif fit == "pad":
        image = _pad_square(image, channels, background)
    stretched_images.value += max(image.size) > _NEARLY_SQUARE * min(image.size)
    return resize_image(np.asarray(image), image_size, channels)


def _center_square(image: Image.Image, side: int) -> Image.Image:
    """The central square of `side` pixels. `ImageOps.fit` would interpolate where it is half a pixel off the center."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _pad_square(image: Image.Image, channels: int, background: Color) -> Image.Image:
    """The image in the middle of a square of the background. `ImageOps.pad` rounds odd margins half to even."""
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), background)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.convert("L") if channels == 1 else square
