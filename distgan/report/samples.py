"""A grid of samples as a file."""

from __future__ import annotations

from pathlib import Path

from distgan.errors import UserError
from distgan.report.grids import image_grid, png_bytes
from distgan.training.sampling import find_checkpoint, labelled_samples

_WIDE_ENOUGH = 64


def write_samples(
    url: str, count: int, seed: int, out: Path, label: str | None = None, *, trust_code: bool = False
) -> tuple[str, int]:
    """Draws images from a run or checkpoint into a PNG; returns the checkpoint's name and how many they are.

    For the label `all` they are `count` rounded down to whole rows of one image a label, at least one row.
    """
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: grids are written as PNG; give a name that ends in .png")
    checkpoint = find_checkpoint(url)
    images, columns = labelled_samples(checkpoint, count, seed, label, trust_code=trust_code)
    scale = max(1, _WIDE_ENOUGH // images.shape[-1])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(png_bytes(image_grid(images, columns, scale=scale)))
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    return checkpoint.manifest.name, len(images)
