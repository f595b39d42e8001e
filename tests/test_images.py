"""Image bytes to arrays and back."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image

from distgan.data.images import decode_image, encode_image, resize_image
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
    with pytest.raises(ValueError, match=r"not a whole .*exceeds limit"):
        decode_image(bomb, 16, 1)


def test_16_bit_grey_keeps_its_range() -> None:
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
    grey = resize_image(np.full((16, 16, 3), (255, 0, 0), np.uint8), 16, 1)
    assert grey.flat[0] == 76  # ITU-R 601 luma of red
    colour = resize_image(np.full((4, 4, 1), 9, np.uint8), 16, 3)
    assert colour.shape == (16, 16, 3)
    assert (colour == 9).all()
