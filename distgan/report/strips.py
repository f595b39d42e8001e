"""Strips of images between latents, by a run's best generator."""

from __future__ import annotations

import torch

from distgan.inference.exported import find_generator
from distgan.inference.sampling import SampleOptions, draw
from distgan.report.pictures import small_data_url
from distgan.report.run_data import RunData
from distgan.tracking.grids import enlargement, image_grid

_STRIPS = SampleOptions(count=5, interpolate="spherical", steps=9)

# A larger PNG file becomes WebP.
_MOST_PNG_BYTES = 200_000


def interpolation_strips(run: RunData, *, trust_code: bool = False) -> str:
    """A picture as a data URL: the first rows of `distgan sample --interpolate`; the labels follow each other.

    Raises UserError where the run has no checkpoint, and for networks outside distgan without `trust_code`.
    """
    samples = draw(find_generator(run.storage.url, trust_code=trust_code), _STRIPS, trust_code=trust_code)
    images = torch.cat(list(samples.batches))
    grid = image_grid(images, samples.columns, scale=enlargement(images.shape[-1]))
    return small_data_url(grid, _MOST_PNG_BYTES)
