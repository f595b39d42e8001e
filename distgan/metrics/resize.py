"""How images reach the 299x299 of Inception: the conventions that papers' distances differ by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_as_tensorflow(images: Tensor, size: int) -> Tensor:
    """Bilinear as TensorFlow 1's `resize_bilinear`: (N, C, H, W) floats to (N, C, size, size).

    Pixel i of the result is read at i · H / size, not at the centres of pixels, and without a filter before it, so that
    large images are sampled rather than averaged: the published FID was measured so.
    """
    rows, columns = (_interpolation(length, size).to(images) for length in images.shape[2:])
    return rows @ images @ columns.T


def resize_as_pillow(images: Tensor, size: int) -> Tensor:
    """Bicubic with Pillow's filter, which averages what it shrinks: (N, C, H, W) of 0 to 255 to (N, C, size, size).

    Values are not rounded. What bicubic weights carry beyond 0 and 255 is clamped, as the clean-fid package does since
    2022. Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation" (2022).
    """
    resized = F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255)


def _interpolation(length: int, size: int) -> Tensor:
    """(size, length): each row the weights of the two pixels that it lies between."""
    places = torch.arange(size, dtype=torch.float32) * (length / size)
    before = places.floor().long()
    after = (before + 1).clamp(max=length - 1)
    part = places - before
    weights = torch.zeros(size, length)
    rows = torch.arange(size)
    weights[rows, before] = 1 - part
    weights[rows, after] += part
    return weights
