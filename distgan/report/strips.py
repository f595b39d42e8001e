"""Strips of images between latents, by a run's best generator."""

from __future__ import annotations

import base64

import torch

from distgan.inference.exported import find_generator
from distgan.inference.sampling import SampleOptions, draw
from distgan.report.pictures import webp
from distgan.report.run_data import RunData
from distgan.tracking.grids import image_grid, png_bytes

_STRIPS = SampleOptions(count=5, interpolate="spherical", steps=9)

_SHOWN_SIZE = 64

# A larger PNG file becomes WebP.
_MOST_PNG_BYTES = 200_000


def interpolation_strips(run: RunData, *, trust_code: bool = False) -> str:
    """A picture as a data URL: the first rows of `distgan sample --interpolate`; the labels follow each other.

    Raises UserError where the run has no checkpoint, and for networks outside distgan without `trust_code`.
    """
    samples = draw(find_generator(run.storage.url, trust_code=trust_code), _STRIPS, trust_code=trust_code)
    images = torch.cat(list(samples.batches))
    grid = image_grid(images, samples.columns, scale=max(1, _SHOWN_SIZE // images.shape[-1]))
    data, kind = png_bytes(grid), "png"
    if len(data) > _MOST_PNG_BYTES:
        data, kind = webp(data), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
