"""Sample images in rows and columns as one picture, and the tracker `samples`, which keeps them."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from functools import cache

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from distgan.text import printable
from distgan.tracking.tracker import Tracker

REALS = "reals.png"

_WHITE = 255

_WIDE_ENOUGH = 64

# Names of columns and rows, in pixels but for lines and characters.
_PART = re.compile(r"[^\s_/-]*(?:[\s_/-]+|$)")

_TEXT_SIZE, _LINE, _MOST_LINES, _MOST_NAME_WIDTH, _MOST_CHARACTERS = 11, 14, 3, 160, 100


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2, scale: int = 1) -> Image.Image:
    """Images side by side, row by row, on white.

    Args:
        images: uint8 (N, C, H, W), N at least 1, C = 1 (gray) or 3 (RGB).
        columns: images in a row; by default the grid is nearly square.
        padding: white pixels between images and around the grid, not scaled.
        scale: each pixel of an image becomes a square of this many pixels a side.
    """
    assert images.dtype == torch.uint8
    assert images.ndim == 4
    assert images.shape[0] > 0
    assert images.shape[1] in (1, 3)
    count, channels, height, width = images.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    enlarged = images.cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    cell_height, cell_width = height * scale + padding, width * scale + padding
    canvas = torch.full(
        (channels, rows * cell_height + padding, columns * cell_width + padding), _WHITE, dtype=torch.uint8
    )
    for place, image in enumerate(enlarged):
        row, column = divmod(place, columns)
        top, left = padding + row * cell_height, padding + column * cell_width
        canvas[:, top : top + height * scale, left : left + width * scale] = image
    pixels = canvas.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def enlargement(width: int) -> int:
    """By how much images of this width are enlarged to be seen: to about 64 pixels, larger ones not."""
    return max(1, _WIDE_ENOUGH // width)


def with_column_names(grid: Image.Image, names: Sequence[str], padding: int = 2) -> Image.Image:
    """A grid with a name over each column, in at most three lines."""
    width = (grid.width - padding) // len(names)
    texts = [_wrapped(name, width - padding, _MOST_LINES) for name in names]
    top = max(map(len, texts)) * _LINE + padding
    canvas = Image.new(grid.mode, (grid.width, top + grid.height), "white")
    canvas.paste(grid, (0, top))
    pen = ImageDraw.Draw(canvas)
    for column, lines in enumerate(texts):
        for line, text in enumerate(reversed(lines)):
            middle, bottom = padding + column * width + (width - padding) / 2, top - line * _LINE
            pen.text((middle, bottom), text, "black", _font(), anchor="md")
    return canvas


def with_row_names(grid: Image.Image, names: Sequence[str], padding: int = 2) -> Image.Image:
    """A grid with a name, of one or more lines, on the left of each row."""
    height = (grid.height - padding) // len(names)
    texts = [[_shortened(line, _MOST_NAME_WIDTH) for line in name.split("\n")] for name in names]
    left = math.ceil(max(_font().getlength(line) for lines in texts for line in lines)) + 4 * padding
    canvas = Image.new(grid.mode, (left + grid.width, grid.height), "white")
    canvas.paste(grid, (left, 0))
    pen = ImageDraw.Draw(canvas)
    for row, lines in enumerate(texts):
        middle = padding + row * height + (height - padding) / 2
        for line, text in enumerate(lines):
            pen.text((left - 2 * padding, middle + (line - (len(lines) - 1) / 2) * _LINE), text, "black", _font(), "rm")
    return canvas


@cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which has Latin, Greek, Cyrillic and more; it comes with matplotlib."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", _TEXT_SIZE)


def _wrapped(text: str, width: float, most: int) -> list[str]:
    """A text in at most so many lines of a width in pixels, broken between words; too long lines end by an ellipsis."""
    parts, lines = list(filter(None, _PART.findall(printable(text[:_MOST_CHARACTERS])))), [""]
    for place, part in enumerate(parts):
        if not lines[-1] or _font().getlength(f"{lines[-1]}{part}".rstrip()) <= width:
            lines[-1] += part
        elif len(lines) < most:
            lines.append(part)
        else:
            lines[-1] += "".join(parts[place:])
            break
    return [_shortened(line.rstrip(), width) for line in lines]


def _shortened(text: str, width: float) -> str:
    """A text that fits into a width in pixels, with an ellipsis where its end is left out."""
    text = printable(text[:_MOST_CHARACTERS])
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def png_bytes(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class SampleTracker(Tracker):
    """Writes the grids as `samples/kimg-000123.400.png`, and one of real images as `reals.png`."""

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        self.run.write(f"samples/kimg-{kimg:010.3f}.png", png_bytes(grid))

    def real_images(self, grid: Image.Image) -> None:
        self.run.write(REALS, png_bytes(grid))
