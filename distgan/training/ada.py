"""The augmentations of ADA (Karras et al. 2020, appendix B), without its filters and noise, as R3GAN uses them.

An image is warped once, by the product of its flips, turns, scales and shifts; then its colors are changed, and a
square is cut out. All of it is matrix products: differentiable twice, and deterministic on GPUs. The source resamples
by a wavelet on images of twice the size; here by a linear filter, which is wider where an image shrinks.

Nothing is copied from the host, which a CUDA graph could not capture.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from distgan.losses.context import Context

# Standard deviations of log2 of scales, of shifts as a fraction of the side, and of the colors' changes.
_SCALE, _SHIFT, _BRIGHTNESS, _CONTRAST, _SATURATION = 0.2, 0.125, 0.2, 0.5, 1.0

# Color changes have half the probability of the others.
_COLOR = 0.5

_DRAWS = 24

# Weights of a warp that are in memory at once, unless those of a single image are more.
_MOST_WEIGHTS = 2**24


def ada(images: Tensor, context: Context, stream: str, probability: float) -> Tensor:
    """Images (N, C, H, W), H = W, in [-1, 1], augmented; beyond the border they are mirrored.

    Each change is made with the probability, those of colors with half of it. `stream` is the random stream's name.
    In float32 or better: autocast is off, and images that a generator made under it are converted, as bfloat16 cannot
    tell neighboring pixels of a large image apart.
    """
    with torch.autocast(images.device.type, enabled=False):
        return _augmented(images.to(context.dtype), context, stream, probability)


def _augmented(images: Tensor, context: Context, stream: str, probability: float) -> Tensor:
    count = len(images)
    gates = context.uniform(f"{stream}, ada chosen", _DRAWS, count)
    uniform = context.uniform(f"{stream}, ada", _DRAWS, count)
    normal = context.normal(f"{stream}, ada normal", _DRAWS, count)
    matrix = _warp_matrices(gates, uniform, normal, probability, images.shape[3])
    images = warp(images, matrix[:, :2, :2], matrix[:, :2, 2] * images.shape[3])
    images = recolor(images, _color_matrices(gates[10:], uniform[10:], normal[10:], _COLOR * probability))
    square = _square(images, *uniform[20:22]) & (gates[20] < probability)[:, None, None, None]
    return torch.where(square, 0, images)


def warp(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Images (N, C, S, S) of which the place x, counted from the center, shows the source's place matrix x + shift.

    `matrix` is (N, 2, 2) for columns (x, y), `shift` (N, 2) in pixels. Two passes (Catmull & Smith 1980): each row is
    resampled, then each column. Where the second would divide by a small number, the image is turned by 90 degrees.
    """
    warped: Tensor = _Warp.apply(images, matrix, shift, False)  # type: ignore[no-untyped-call]
    return warped


class _Warp(torch.autograd.Function):
    """The warp, or its transpose: it is linear in the images.

    Its weights, 2 S^3 numbers an image, are made anew in each direction, for a few images at a time.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, matrix: Tensor, shift: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(matrix, shift)
        ctx.transposed = transposed
        count = max(1, _MOST_WEIGHTS // (2 * images.shape[3] ** 3))
        parts = [slice(first, first + count) for first in range(0, len(images), count)]
        return torch.cat([_warp(images[part], matrix[part], shift[part], transposed) for part in parts])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        matrix, shift = ctx.saved_tensors
        back: Tensor = _Warp.apply(gradients[0], matrix, shift, not ctx.transposed)  # type: ignore[no-untyped-call]
        return back, None, None, None


def _warp(images: Tensor, matrix: Tensor, shift: Tensor, transposed: bool) -> Tensor:
    turned = matrix[:, 1, 1].abs() < matrix[:, 1, 0].abs()
    matrix = torch.where(turned[:, None, None], torch.stack([matrix[:, :, 1], -matrix[:, :, 0]], 2), matrix)
    a, b, c, d = matrix.flatten(1).unbind(1)
    size = images.shape[3]
    places = torch.arange(size, device=images.device, dtype=images.dtype) - (size - 1) / 2
    # Rows that the second pass may read: those of an image of twice the side.
    half = size // 2
    heights = torch.arange(2 * size, device=images.device, dtype=images.dtype) - half - (size - 1) / 2
    slope = (b / d)[:, None, None]
    sources = (a - b * c / d)[:, None, None] * places + slope * (heights[:, None] - shift[:, 1, None, None])
    weights = _weights(sources + shift[:, 0, None, None], (a - b * c / d), size)
    down = (c[:, None, None] * places[:, None] + d[:, None, None] * places) + shift[:, 1, None, None]
    columns = _weights(down, d, 2 * size)
    turned = turned[:, None, None, None]
    if transposed:
        upright = torch.where(turned, images.rot90(1, (2, 3)), images)
        passed = torch.einsum("ncyo,noyr->ncro", upright, columns)
        tall = torch.einsum("ncro,nrox->ncrx", passed, weights)
        outside = torch.cat([tall[:, :, :half].flip(2), tall[:, :, half + size :].flip(2)], 2)
        return tall[:, :, half : half + size] + outside
    tall = torch.cat([images[:, :, :half].flip(2), images, images[:, :, half:].flip(2)], 2)
    passed = torch.einsum("ncrx,nrox->ncro", tall, weights)
    found = torch.einsum("ncro,noyr->ncyo", passed, columns)
    return torch.where(turned, found.rot90(-1, (2, 3)), found)


def recolor(images: Tensor, matrix: Tensor) -> Tensor:
    """Images (N, 3, H, W) of which each pixel is `matrix`, (N, 4, 4), times (color, 1); gray ones get its mean."""
    if images.shape[1] == 1:
        row = matrix[:, :3].mean(1)
        return images * row[:, :3].sum(1)[:, None, None, None] + row[:, 3, None, None, None]
    pixels = matrix[:, :3, :3] @ images.flatten(2) + matrix[:, :3, 3:]
    return pixels.reshape(images.shape)


def _weights(places: Tensor, scale: Tensor, size: int) -> Tensor:
    """Weights (N, …, size) with which pixels make the value at `places` (N, …), counted from the center.

    A tent one pixel wide at each side, or as wide as `scale` (N,) where it shrinks the image.
    """
    width = scale.abs().clamp(min=1)[:, None, None, None]
    pixels = torch.arange(size, device=places.device, dtype=places.dtype)
    mirrored = _mirrored(places + (size - 1) / 2, size).clamp(0, size - 1)
    weights = (1 - (mirrored[..., None] - pixels).abs() / width).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Places of a line of pixels that is mirrored at both ends again and again, in [-1/2, size - 1/2]."""
    folded = (places + 0.5) % (2 * size)
    return torch.minimum(folded, 2 * size - folded) - 0.5


def _square(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Whether a pixel is in the square of half the side with a center anywhere, (N, 1, H, W)."""
    size = images.shape[3]
    places = (torch.arange(size, device=images.device) + 0.5) / size
    inside = [(places - center[:, None]).abs() < 0.25 for center in (vertical, horizontal)]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _warp_matrices(gates: Tensor, uniform: Tensor, normal: Tensor, probability: float, size: int) -> Tensor:
    """(N, 3, 3): from places of the result to those of the source, shifts in fractions of the side.

    `size` is the side in pixels: the first shift is by whole ones, which blurs nothing.
    """
    chosen = gates < probability
    # Two rotations, before and after the scales of the axes, so that both together have the probability.
    turns = gates < 1 - (1 - probability) ** 0.5
    zero, one = torch.zeros_like(uniform[0]), torch.ones_like(uniform[0])

    def when(gate: Tensor, value: Tensor, neutral: Tensor) -> Tensor:
        return torch.where(gate, value, neutral)

    flip = when(chosen[0], 1 - 2 * (uniform[0] * 2).floor(), one)
    quarter = when(chosen[1], (uniform[1] * 4).floor(), zero)
    shift = [when(chosen[2], ((row * 2 - 1) * _SHIFT * size).round() / size, zero) for row in (uniform[2], uniform[3])]
    scale = when(chosen[3], 2 ** (_SCALE * normal[0]), one)
    before = when(turns[4], (uniform[4] * 2 - 1) * math.pi, zero)
    stretch = when(chosen[5], 2 ** (_SCALE * normal[1]), one)
    after = when(turns[6], (uniform[5] * 2 - 1) * math.pi, zero)
    fraction = [when(chosen[7], _SHIFT * row, zero) for row in (normal[2], normal[3])]
    cosine, sine = torch.cos(quarter * (math.pi / 2)).round(), torch.sin(quarter * (math.pi / 2)).round()
    steps = [
        _matrix(flip, zero, zero, zero, one, zero),
        _matrix(cosine, -sine, zero, sine, cosine, zero),
        _matrix(one, zero, shift[0], zero, one, shift[1]),
        _matrix(scale, zero, zero, zero, scale, zero),
        _matrix(before.cos(), -before.sin(), zero, before.sin(), before.cos(), zero),
        _matrix(stretch, zero, zero, zero, 1 / stretch, zero),
        _matrix(after.cos(), -after.sin(), zero, after.sin(), after.cos(), zero),
        _matrix(one, zero, fraction[0], zero, one, fraction[1]),
    ]
    found = steps[0]
    for step in steps[1:]:
        found = found @ step
    return found


def _color_matrices(gates: Tensor, uniform: Tensor, normal: Tensor, probability: float) -> Tensor:
    """(N, 4, 4): brightness, contrast, a mirroring at the middle of the gray axis, hue, saturation."""
    chosen = (gates < probability)[:, :, None, None]
    identity = torch.eye(4, dtype=uniform.dtype, device=uniform.device)
    colors = (torch.arange(4, device=uniform.device) < 3).to(uniform.dtype)
    axis = colors / math.sqrt(3)
    gray = torch.outer(axis, axis)
    ones = torch.diag(colors)
    brightness = identity + _BRIGHTNESS * _each(normal[0]) * (ones.sum(1)[:, None] * identity[3])
    contrast = identity + (2 ** (_CONTRAST * _each(normal[1])) - 1) * ones
    flip = identity - 2 * gray * (uniform[0] * 2).floor()[:, None, None]
    angle = _each((uniform[1] * 2 - 1) * math.pi)
    cross = identity.new_zeros(4, 4)
    cross[0, 1], cross[0, 2], cross[1, 0], cross[1, 2], cross[2, 0], cross[2, 1] = -1, 1, 1, -1, -1, 1
    hue = identity + angle.sin() * cross / math.sqrt(3) + (1 - angle.cos()) * (gray - ones)
    saturation = gray + 2 ** (_SATURATION * _each(normal[2])) * (ones - gray) + (identity - ones)
    found = identity.expand(len(brightness), 4, 4)
    for row, step in enumerate((brightness, contrast, flip, hue, saturation)):
        found = torch.where(chosen[row], step, identity) @ found
    return found


def _matrix(*entries: Tensor) -> Tensor:
    """(N, 3, 3) of two rows of three numbers (N,), and the row 0, 0, 1."""
    zero, one = torch.zeros_like(entries[0]), torch.ones_like(entries[0])
    return torch.stack([*entries, zero, zero, one], 1).reshape(-1, 3, 3)


def _each(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]
