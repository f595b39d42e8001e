"""Transparency: composed on a background when packed, on white where foreign shards are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.data.images import Color, decode_image, parse_color
from distgan.data.sources.folder import FolderSource
from packing import encoded, pack_here, pixels_of

pytestmark = pytest.mark.timeout(60)

ORANGE: Color = (240, 120, 0)


def halves(mode: str, left: object, right: object) -> Image.Image:
    """16x16 pixels of two colors."""
    image = Image.new(mode, (16, 16), left)  # type: ignore[arg-type]
    image.paste(right, (8, 0, 16, 16))  # type: ignore[arg-type]
    return image


def palette() -> Image.Image:
    image = halves("P", 0, 1)
    image.putpalette([200, 0, 0, 0, 0, 0])
    return image


# Files whose left half is opaque and whose right half is clear, with black or something else below.
RED, SHADE = (200, 0, 0), (90, 90, 90)
CLEAR: dict[str, tuple[bytes, Color]] = {
    "color": (encoded(halves("RGBA", (*RED, 255), (0, 0, 0, 0))), RED),
    "color, WebP": (encoded(halves("RGBA", (*RED, 255), (0, 0, 0, 0)), "WEBP", lossless=True), RED),
    "gray": (encoded(halves("LA", (90, 255), (0, 0))), SHADE),
    "palette": (encoded(palette(), transparency=1), RED),
    "palette of alphas": (encoded(palette(), transparency=b"\xff\x00"), RED),
    "one color is clear": (encoded(halves("RGB", RED, (1, 2, 3)), transparency=(1, 2, 3)), RED),
    "one shade is clear": (encoded(halves("L", 90, 7), transparency=7), SHADE),
    "one of 16 bits is clear": (
        encoded(Image.fromarray(np.where(np.arange(256).reshape(16, 16) % 16 < 8, 90 * 257, 7).astype(np.uint16)),
                transparency=7),
        SHADE,
    ),
}  # fmt: skip


def luma(color: Color) -> int:
    value = Image.new("RGB", (1, 1), color).convert("L").getpixel((0, 0))
    assert isinstance(value, int)
    return value


@pytest.mark.parametrize("name", CLEAR)
@pytest.mark.parametrize("channels", [1, 3])
def test_at_load_it_is_composed_on_white(name: str, channels: int) -> None:
    data, opaque = CLEAR[name]
    pixels = decode_image(data, 16, channels)
    assert pixels[:, 3, 3].tolist() == (list(opaque) if channels == 3 else [luma(opaque)])
    assert (pixels[:, :, 8:] == 255).all()


@pytest.mark.parametrize("name", CLEAR)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("background", ["white", "black", "#f07800"])
def test_when_packed_it_is_composed_on_the_background(
    tmp_path: Path, name: str, channels: int, background: str
) -> None:
    data, opaque = CLEAR[name]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / f"a.{'webp' if 'WebP' in name else 'png'}").write_bytes(data)
    ground = parse_color(background)
    index = pack_here(FolderSource(str(photos)), tmp_path / "out", channels=channels, background=ground)
    (pixels,) = pixels_of(tmp_path / "out", index)
    for column, color in ((3, opaque), (12, ground)):
        assert pixels[:, 5, column].tolist() == (list(color) if channels == 3 else [luma(color)])


def test_half_transparent_pixels_mix_before_they_are_resized(tmp_path: Path) -> None:
    """What a clear pixel hides shows nowhere, not even at the edge."""
    (tmp_path / "photos").mkdir()
    image = halves("RGBA", (255, 255, 255, 255), (0, 0, 0, 0))
    image.paste((0, 0, 0, 128), (0, 0, 16, 2))
    image.resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "photos" / "a.png")
    (pixels,) = pixels_of(tmp_path / "out", pack_here(FolderSource(str(tmp_path / "photos")), tmp_path / "out"))
    assert pixels[0, 0, 5] == 127
    assert (pixels[0, 4:] == 255).all()


def test_opaque_pixels_stay_as_they_are() -> None:
    colors = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    colors[:, :, 3] = 255
    assert np.array_equal(decode_image(encoded(Image.fromarray(colors)), 64, 3).transpose(1, 2, 0), colors[:, :, :3])


def test_colors_by_name_or_number() -> None:
    assert parse_color("#f07800") == parse_color("#F07800") == ORANGE
    for text in ("", "red", "f07800", "#f07", "#f0780g", "#+f0780", "#f0 780", "white "):
        with pytest.raises(ValueError, match="is not white, black or #rrggbb"):
            parse_color(text)
