"""How images of any shape come to one size: stretched, cut, padded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distgan.data.images import fit_image
from distgan.data.sources.folder import FolderSource
from distgan.errors import UserError
from packing import pack_here, pixels_of

pytestmark = pytest.mark.timeout(60)

# 24 wide, 8 high: the left third is 10, the middle 100, the right 200.
WIDE = np.repeat(np.array([10, 100, 200], np.uint8), 8)[None].repeat(8, 0)


@pytest.mark.parametrize("tall", [False, True])
def test_each_way_to_fit(tall: bool) -> None:
    image = WIDE.T if tall else WIDE

    def line(*arguments: object) -> list[int]:
        fitted = fit_image(image, 24, 1, *arguments)[:, :, 0]  # type: ignore[arg-type]
        along, across = (fitted[:, 12], fitted[12]) if tall else (fitted[12], fitted[:, 12])
        return [*along[[1, 12, 22]].tolist(), *across[[1, 22]].tolist()]

    assert line("stretch") == [10, 100, 200, 100, 100] == line()
    assert line("crop") == [100, 100, 100, 100, 100]
    assert line("pad") == [10, 100, 200, 255, 255]
    assert line("pad", None, (9, 9, 9)) == [10, 100, 200, 9, 9]
    assert line("stretch", 8) == [100, 100, 100, 100, 100] == line("pad", 8)


def test_what_is_padded_keeps_its_pixels_and_its_background_its_color() -> None:
    padded = fit_image(WIDE, 24, 3, "pad", None, (240, 120, 0))
    assert np.array_equal(padded[8:16], WIDE[:, :, None].repeat(3, 2))
    assert (padded[[0, 7, 16, 23]] == (240, 120, 0)).all()


def test_the_square_is_in_the_middle() -> None:
    """CelebA's 178x218, as its crops of 108 and 178 pixels are usually cut."""
    rows, columns = np.mgrid[:218, :178].astype(np.uint8)
    for side, top, left in ((108, 55, 35), (178, 20, 0), (177, 20, 0)):
        assert np.array_equal(fit_image(rows, side, 1, crop=side)[:, 0, 0], np.arange(top, top + side))
        assert np.array_equal(fit_image(columns, side, 1, crop=side)[0, :, 0], np.arange(left, left + side))
    assert np.array_equal(fit_image(rows, 178, 1, "crop"), fit_image(rows, 178, 1, crop=178))


def test_an_image_smaller_than_the_crop_is_named(tmp_path: Path) -> None:
    for name, size in (("large", (20, 30)), ("small", (20, 9))):
        Image.new("L", size, size[1]).save(tmp_path / f"{name}.png")
    source = FolderSource(str(tmp_path))
    with pytest.raises(UserError, match=r"small\.png: it has 20x9 pixels, fewer than --crop 10; --bad skip leaves"):
        pack_here(source, tmp_path / "a", crop=10)
    index = pack_here(source, tmp_path / "b", crop=10, bad="skip")
    assert [int(image[0, 0, 0]) for image in pixels_of(tmp_path / "b", index)] == [30]
