"""A picture of samples beside their nearest training images."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distgan.errors import UserError
from distgan.inference.memorization import CLOSE, Nearest, Neighbors
from distgan.inference.report import name_and_unit, nearest_lines
from distgan.storage.local_files import replacing
from distgan.storage.storage import translate_errors
from distgan.tracking.formatting import number
from distgan.tracking.grids import image_grid, png_bytes

MOST_ROWS = 64

# Pixels. Smaller images are enlarged to about this size, by a whole number.
_SIDE = 128

_GAP, _GROUP_GAP, _MARGIN = 6, 28, 14

_TEXT_SIZE = 13

_LINE = 18

_BLACK, _GRAY = "#000000", "#666666"

_CLOSE = "#D55E00"  # Okabe and Ito's vermilion, for color-blind readers

_FRAME = "#DDDDDD"

_LEGEND = f"in color: as near as {CLOSE:.0%} of real images are to another one"


def check_picture_path(path: str) -> None:
    """Raises UserError unless `path` names a PNG file on this machine."""
    if "://" in path or Path(path).is_dir() or Path(path).suffix.lower() != ".png":
        raise UserError(f"--picture {path}: give the name of a .png file on this machine")


def draw_nearest(nearest: Nearest, path: Path) -> None:
    """Writes `nearest_picture` as a PNG. Raises UserError where it cannot be written."""
    with translate_errors(str(path)), replacing(path) as partial:
        partial.write_bytes(png_bytes(nearest_picture(nearest)))


def nearest_picture(nearest: Nearest) -> Image.Image:
    """A row for each sample, the nearest to a training image by pixels first, at most `MOST_ROWS` rows.

    A row has the sample, its nearest training images by pixels, then those by features. Below each stand its distance,
    in color if it is within `Neighbors.limit`, and its sample number. `nearest_lines` stand at the top.
    """
    return _Sheet(nearest, nearest.nearest_first[:MOST_ROWS]).drawn()


class _Sheet:
    """The picture in progress."""

    def __init__(self, nearest: Nearest, rows: list[int]) -> None:
        self._nearest, self._rows = nearest, rows
        width = nearest.fakes.shape[-1]
        self._scale = max(1, _SIDE // width)
        self._side = width * self._scale
        self._font = ImageFont.load_default(_TEXT_SIZE)
        self._lines = [*nearest_lines(nearest), _LEGEND]
        if len(rows) < len(nearest.fakes):
            self._lines.append(f"shown are the {len(rows)} samples nearest to a training image by pixels")
        self._group = nearest.pixels.fake.shape[1] * (self._side + _GAP) + _GROUP_GAP
        self._first = _MARGIN + self._side + _GROUP_GAP
        self._top = _MARGIN + (len(self._lines) + 2) * _LINE
        self._row = self._side + 2 * _LINE + _GAP
        groups = self._first + len(nearest.measures) * self._group - _GROUP_GAP
        text = max(self._font.getlength(line) for line in self._lines)
        size = max(groups, round(text) + _MARGIN) + _MARGIN, self._top + len(rows) * self._row + _MARGIN
        self._canvas = Image.new("RGB", size, "white")
        self._pen = ImageDraw.Draw(self._canvas)

    def drawn(self) -> Image.Image:
        for line, text in enumerate(self._lines):
            self._write(_MARGIN, _MARGIN + line * _LINE, text)
        self._headings()
        for place, sample in enumerate(self._rows):
            top = self._top + place * self._row
            self._tile(_MARGIN, top, self._nearest.fakes[sample], f"sample {sample}")
            for group, found in enumerate(self._nearest.measures.values()):
                self._neighbors(self._first + group * self._group, top, found, sample)
        return self._canvas

    def _headings(self) -> None:
        top = self._top - _LINE
        self._write(_MARGIN, top, "sample", _GRAY)
        for group, measure in enumerate(self._nearest.measures):
            name, unit = name_and_unit(measure, self._nearest.extractor)
            self._write(self._first + group * self._group, top, f"nearest by {name}: {unit}", _GRAY)

    def _neighbors(self, left: int, top: int, found: Neighbors, sample: int) -> None:
        pairs = zip(found.fake[sample].tolist(), found.fake_numbers[sample].tolist(), strict=True)
        for column, (distance, image) in enumerate(pairs):
            color = _CLOSE if distance <= found.limit else _BLACK
            place = left + column * (self._side + _GAP)
            self._tile(place, top, self._nearest.training_images[image], number(distance), color)
            self._write(place, top + self._side + _LINE, f"no. {image}", _GRAY)

    def _tile(self, left: int, top: int, image: Tensor, text: str, color: str = _BLACK) -> None:
        assert image.dtype == torch.uint8
        enlarged = image_grid(image[None], padding=0, scale=self._scale)
        self._canvas.paste(enlarged.convert("RGB"), (left, top))
        self._pen.rectangle((left - 1, top - 1, left + enlarged.width, top + enlarged.height), outline=_FRAME)
        self._write(left, top + self._side, text, color)

    def _write(self, left: int, top: int, text: str, color: str = _BLACK) -> None:
        self._pen.text((left, top), text, color, self._font)
