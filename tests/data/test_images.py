"""Image bytes to arrays and back."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from distgan.data.images import decode_image, decode_pixels, encode_image, recovered_jpegs, resize_image
from distgan.data.sources.image_files import image_pixels
from distgan.errors import UserError
from packing import encoded

pytestmark = pytest.mark.timeout(60)


def test_damaged_images_are_no_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for encoding in ("png", "jpg", "webp"):
        data = encode_image(pixels, encoding)  # type: ignore[arg-type]
        for broken in (b"", data[:2], data[:20], data[: len(data) // 2], b"\0" + data, b"hello" * 100):
            with pytest.raises(ValueError, match=r"."):
                decode_image(broken, 16, 3)
        with pytest.raises(ValueError, match="it has 16x16 pixels, not 32x32"):
            decode_image(data, 32, 3)


def test_other_formats_are_refused() -> None:
    for kind in ("TIFF", "PPM"):
        with pytest.raises(ValueError, match="not a whole PNG, JPEG, WebP, GIF or BMP image"):
            decode_image(encoded(Image.new("RGB", (16, 16)), kind), 16, 3)


def test_gif_and_bmp_are_read() -> None:
    image = Image.new("RGB", (16, 16), (200, 10, 30))
    film = encoded(image, "GIF", save_all=True, append_images=[Image.new("RGB", (16, 16), "blue")])
    for data in (encoded(image, "BMP"), encoded(image, "GIF"), film):
        assert decode_image(data, 16, 3)[:, 3, 3].tolist() == pytest.approx([200, 10, 30], abs=4)
    with pytest.raises(ValueError, match=r"not a whole .*GIF"):
        decode_image(film[: len(film) // 4], 16, 3)


def test_an_image_of_absurd_size_is_refused() -> None:
    header = (2**20).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        bomb += len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    with pytest.raises(ValueError, match="it has more than 89,478,485 pixels"):
        decode_image(bomb, 16, 1)


def scans(number: int, image: bytes) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    last = image[image.rindex(b"\xff\xda") : -2]
    return image[:-2] + last * number + b"\xff\xd9"


@pytest.mark.timeout(20)
def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    image = encoded(Image.new("L", (1024, 1024), 77), "JPEG", progressive=True)
    with pytest.raises(ValueError, match="it is a JPEG of more than 100 scans"):
        decode_image(scans(5000, image), None, 1)
    with pytest.raises(UserError, match=r"a\.jpg: not a readable image: it is a JPEG of more than 100 scans"):
        image_pixels(scans(5000, image), "a.jpg")
    assert (decode_image(scans(20, image), None, 1) == 77).all()


def test_bytes_that_look_like_scans_in_metadata_or_behind_the_image_are_none() -> None:
    image = encoded(Image.new("L", (32, 32), 77), "JPEG")
    comment = b"\xff\xfe" + (2002).to_bytes(2, "big") + b"\xff\xda" * 1000
    assert (decode_image(image[:2] + comment + image[2:] + b"\xff\xda" * 1000, 32, 1) == 77).all()


def test_a_large_image_is_refused() -> None:
    large = encoded(Image.new("1", (10_000, 9_000)))
    for decode in (lambda: decode_image(large, None, 1), lambda: image_pixels(large, "a.png")):
        with pytest.raises((ValueError, UserError), match="it has 10000x9000 pixels, more than 89,478,485"):
            decode()


def test_pillow_warns_of_nothing() -> None:
    """In a process of its own: pytest sets the filters of warnings back."""
    script = """
import io
from PIL import Image
from distgan.data.images import decode_image
from distgan.data.sources.image_files import image_pixels
for data in LARGE, CORRUPT:
    for decode in (lambda: decode_image(data, None, 3), lambda: image_pixels(data, "a")):
        try:
            print(decode().shape)
        except Exception as error:
            print(error)
"""
    large = encoded(Image.new("1", (10_000, 9_000)))
    jpeg = encoded(Image.new("RGB", (8, 8)), "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"  # cut in its first entry
    corrupt = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    script = script.replace("LARGE", repr(large)).replace("CORRUPT", repr(corrupt))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert run.stderr == ""
    assert run.stdout.splitlines()[2:] == ["(3, 8, 8)", "(8, 8, 3)"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:20] + b"\0\0" + data[20:],  # between segments
        lambda data: data[: len(data) * 3 // 4] + b"\xff\xd3" + data[len(data) * 3 // 4 :],  # a stray restart
        lambda data: data[:-2] + bytes(9) + data[-2:],
    ],
)
def test_what_libjpeg_warns_of_is_taken_by_all_and_counted(damage: Callable[[bytes], bytes]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    clean = encode_image(noise, "jpg")
    before = recovered_jpegs.value
    assert np.array_equal(decode_image(clean, 32, 3).transpose(1, 2, 0), image_pixels(clean, "a.jpg"))
    assert recovered_jpegs.value == before
    damaged = damage(clean)
    assert np.array_equal(decode_image(damaged, 32, 3).transpose(1, 2, 0), image_pixels(damaged, "a.jpg"))
    assert recovered_jpegs.value == before + 2
    half = clean[: len(clean) // 2]
    with pytest.raises(ValueError, match="not a whole"):
        decode_image(half, 32, 3)
    with pytest.raises(UserError, match="not a readable image"):
        image_pixels(half, "a.jpg")


def test_16_bit_gray_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = decode_image(encoded(Image.fromarray(ramp)), 16, 1)
    assert np.array_equal(decoded[0], ramp >> 8)


def test_images_are_resized_without_keeping_their_aspect_ratio() -> None:
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 20:] = 200
    small = resize_image(wide, 16, 1)
    assert small.shape == (16, 16, 1)
    assert (small[:, :6] == 0).all()
    assert (small[:, 10:] == 200).all()
    gray = resize_image(np.full((16, 16, 3), (255, 0, 0), np.uint8), 16, 1)
    assert gray.flat[0] == 76  # ITU-R 601 luma of red
    color = resize_image(np.full((4, 4, 1), 9, np.uint8), 16, 3)
    assert color.shape == (16, 16, 3)
    assert (color == 9).all()


@pytest.mark.parametrize("shape", [(32, 32), (128, 32), (32, 64), (65, 64), (64, 65)])
def test_a_jpeg_of_another_size_is_refused_or_resized_in_place_too(shape: tuple[int, int]) -> None:
    data = encode_image(np.full((*shape, 3), 200, np.uint8), "jpg")
    out = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match=f"it has {shape[1]}x{shape[0]} pixels, not 64x64"):
        decode_pixels(data, 64, 3, "none", out)
    assert decode_pixels(data, 64, 3, "bilinear", out) is out
    assert (out == 200).all()
