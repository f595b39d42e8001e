"""Sample images in rows and columns as one picture, and the tracker `samples`, which keeps them."""

from __future__ import annotations

import io
import math

import torch
from PIL import Image
from torch import Tensor

from distgan.tracking.tracker import Tracker

_WHITE = 255


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


def png_bytes(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class SampleTracker(Tracker):
    """Writes the grids as `samples/kimg-000123.400.png`."""

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        self.run.write(f"samples/kimg-{kimg:010.3f}.png", png_bytes(grid))
