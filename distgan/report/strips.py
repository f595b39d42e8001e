"""Strips of images between latents, by a run's best generator."""

from __future__ import annotations

import base64

import torch
from torch import Tensor

from distgan.evaluation.extractors.extractor import to_uint8
from distgan.inference.exported import find_generator
from distgan.inference.sampling import CPU, average_generator, checkpoint_config
from distgan.report.pictures import webp
from distgan.report.run_data import RunData
from distgan.tracking.grids import image_grid, png_bytes
from distgan.training.networks import DTYPES

_ROWS, _COLUMNS = 5, 9

_SHOWN_SIZE = 64

# A larger PNG file becomes WebP.
_MOST_PNG_BYTES = 200_000


def interpolation_strips(run: RunData, *, trust_code: bool = False) -> str:
    """A picture as a data URL: a row for each pair of latents, with images between the two; a label for each row.

    Raises UserError where the run has no checkpoint, and for networks outside distgan without `trust_code`.
    """
    checkpoint = find_generator(run.storage.url, trust_code=trust_code)
    config = checkpoint_config(checkpoint, trust_code=trust_code)
    network = average_generator(config, checkpoint, CPU)
    ends = torch.randn(2, _ROWS, config.latent_dim, generator=torch.Generator().manual_seed(0))
    latents = slerp(ends[0], ends[1], torch.linspace(0, 1, _COLUMNS)).flatten(0, 1)
    labels: tuple[Tensor, ...] = ()
    if config.num_classes is not None:
        labels = ((torch.arange(_ROWS) % config.num_classes).repeat_interleave(_COLUMNS),)
    with torch.inference_mode():
        images = to_uint8(network(latents.to(DTYPES[config.training.precision]), *labels))
    grid = image_grid(images, _COLUMNS, scale=max(1, _SHOWN_SIZE // images.shape[-1]))
    data, kind = png_bytes(grid), "png"
    if len(data) > _MOST_PNG_BYTES:
        data, kind = webp(data), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def slerp(begin: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985; White 2016, "Sampling Generative Networks"), whose norms stay typical.

    Args:
        begin, end: (N, D).
        shares: (S,), from 0 (`begin`) to 1 (`end`).

    Returns: (N, S, D).
    """
    cosine = torch.nn.functional.cosine_similarity(begin, end, dim=-1).clamp(-1, 1)
    angle = cosine.acos()[:, None, None]
    at = shares[None, :, None]
    mixed = torch.sin((1 - at) * angle) * begin[:, None] + torch.sin(at * angle) * end[:, None]
    linear = (1 - at) * begin[:, None] + at * end[:, None]
    return torch.where(angle.sin() > 1e-6, mixed / angle.sin(), linear)
