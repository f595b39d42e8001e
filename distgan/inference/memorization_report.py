"""Samples beside the training images that are nearest to them, as one picture and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distgan.errors import UserError
from distgan.inference.memorization import CLOSE, Nearest, Neighbours
from distgan.storage.local_files import replacing
from distgan.storage.storage import translate_errors
from distgan.tracking.formatting import number, plural
from distgan.tracking.grids import image_grid, png_bytes

MOST_ROWS = 64

# In pixels. Images are enlarged to about this size, by a whole number; larger ones stay as they are.
_SIDE = 128

_GAP, _GROUP_GAP, _MARGIN = 6, 28, 14

_TEXT_SIZE = 13

_LINE = 18

_BLACK, _GREY = "#000000", "#666666"

_CLOSE = "#D55E00"  # Okabe and Ito's vermilion, told apart by colour-blind readers

_FRAME = "#DDDDDD"

_COLOURED = f"coloured: as near as {CLOSE:.0%} of real images are to another one"


def check_picture_path(path: str) -> None:
    """Raises UserError for what is no name of a PNG file on this machine."""
    if "://" in path or Path(path).is_dir() or Path(path).suffix.lower() != ".png":
        raise UserError(f"--picture {path}: give the name of a .png file on this machine")


def draw_nearest(nearest: Nearest, path: Path) -> None:
    """Writes `nearest_picture` as a PNG. Raises UserError where it cannot be written."""
    with translate_errors(str(path)), replacing(path) as partial:
        partial.write_bytes(png_bytes(nearest_picture(nearest)))


def nearest_picture(nearest: Nearest) -> Image.Image:
    """A row a sample, the nearest to a training image by pixels first, at most `MOST_ROWS` of them.

    A row is the sample, then its nearest training images by pixels, then those by features; under each its distance,
    coloured where it is within `Neighbours.limit`, and its sample number. Above all the words of `nearest_words`.
    """
    rows = np.argsort(nearest.pixels.fake[:, 0], kind="stable")[:MOST_ROWS].tolist()
    return _Sheet(nearest, rows).drawn()


def nearest_words(nearest: Nearest) -> list[str]:
    """Numbers of the samples beside those of real images, a line each."""
    lines = [
        f"{plural(len(nearest.fakes), 'sample')} against {plural(nearest.searched, 'training image')}; beside them "
        f"{plural(len(nearest.real), 'real image')} against the others"
    ]
    for measure, found in nearest.measures.items():
        name, _ = _name_and_unit(measure, nearest.extractor)
        lines.append(
            f"{name}: the nearest at a median distance of {number(found.fake_median)} (real images "
            f"{number(found.real_median)}), of {found.fake_close:.1%} of samples within {number(found.limit)} (of "
            f"{found.real_close:.1%} of real images)"
        )
    lines.append(
        f"exact copies of a training image: {nearest.copies} of {plural(len(nearest.fakes), 'sample')}; "
        f"with an exact duplicate in the data: {nearest.duplicates} of {plural(len(nearest.real), 'real image')}"
    )
    return lines


def nearest_document(nearest: Nearest) -> dict[str, Any]:
    """The same numbers for programs, and of each sample and real image the distance to its nearest training image."""
    document: dict[str, Any] = {
        "samples": len(nearest.fakes),
        "training_images": nearest.searched,
        "exact_copies": nearest.copies,
        "real_images": len(nearest.real),
        "real_images_with_duplicates": nearest.duplicates,
    }
    for measure, found in nearest.measures.items():
        document[measure] = {
            "sample_median": found.fake_median,
            "real_median": found.real_median,
            "limit": found.limit,
            "samples_within_limit": found.fake_close,
            "real_images_within_limit": found.real_close,
            "sample_distances": found.fake[:, 0].tolist(),
            "sample_neighbours": found.fake_numbers[:, 0].tolist(),
            "real_distances": found.real[:, 0].tolist(),
        }
    return document


def _name_and_unit(measure: str, extractor: str | None) -> tuple[str, str]:
    if measure == "pixels":
        return "pixels", "mean difference in grey levels"
    return f"features of {extractor}", "Euclidean distance"


class _Sheet:
    """The picture while it is drawn."""

    def __init__(self, nearest: Nearest, rows: list[int]) -> None:
        self._nearest, self._rows = nearest, rows
        width = nearest.fakes.shape[-1]
        self._scale = max(1, _SIDE // width)
        self._side = width * self._scale
        self._font = ImageFont.load_default(_TEXT_SIZE)
        self._words = [*nearest_words(nearest), _COLOURED]
        if len(rows) < len(nearest.fakes):
            self._words.append(f"shown are the {len(rows)} samples nearest to a training image by pixels")
        self._group = nearest.pixels.fake.shape[1] * (self._side + _GAP) + _GROUP_GAP
        self._first = _MARGIN + self._side + _GROUP_GAP
        self._top = _MARGIN + (len(self._words) + 2) * _LINE
        self._row = self._side + 2 * _LINE + _GAP
        groups = self._first + len(nearest.measures) * self._group - _GROUP_GAP
        text = max(self._font.getlength(line) for line in self._words)
        size = max(groups, round(text) + _MARGIN) + _MARGIN, self._top + len(rows) * self._row + _MARGIN
        self._canvas = Image.new("RGB", size, "white")
        self._pen = ImageDraw.Draw(self._canvas)

    def drawn(self) -> Image.Image:
        for line, words in enumerate(self._words):
            self._write(_MARGIN, _MARGIN + line * _LINE, words)
        self._headings()
        for place, sample in enumerate(self._rows):
            top = self._top + place * self._row
            self._tile(_MARGIN, top, self._nearest.fakes[sample], f"sample {sample}")
            for group, found in enumerate(self._nearest.measures.values()):
                self._neighbours(self._first + group * self._group, top, found, sample)
        return self._canvas

    def _headings(self) -> None:
        top = self._top - _LINE
        self._write(_MARGIN, top, "sample", _GREY)
        for group, measure in enumerate(self._nearest.measures):
            name, unit = _name_and_unit(measure, self._nearest.extractor)
            self._write(self._first + group * self._group, top, f"nearest by {name}: {unit}", _GREY)

    def _neighbours(self, left: int, top: int, found: Neighbours, sample: int) -> None:
        pairs = zip(found.fake[sample].tolist(), found.fake_numbers[sample].tolist(), strict=True)
        for column, (distance, image) in enumerate(pairs):
            colour = _CLOSE if distance <= found.limit else _BLACK
            place = left + column * (self._side + _GAP)
            self._tile(place, top, self._nearest.training_images[image], number(distance), colour)
            self._write(place, top + self._side + _LINE, f"no. {image}", _GREY)

    def _tile(self, left: int, top: int, image: Tensor, words: str, colour: str = _BLACK) -> None:
        assert image.dtype == torch.uint8
        enlarged = image_grid(image[None], padding=0, scale=self._scale)
        self._canvas.paste(enlarged.convert("RGB"), (left, top))
        self._pen.rectangle((left - 1, top - 1, left + enlarged.width, top + enlarged.height), outline=_FRAME)
        self._write(left, top + self._side, words, colour)

    def _write(self, left: int, top: int, words: str, colour: str = _BLACK) -> None:
        self._pen.text((left, top), words, colour, self._font)
