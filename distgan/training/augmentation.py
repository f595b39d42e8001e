"""Random changes of all images that the discriminator sees, real and generated: DiffAugment (Zhao et al. 2020), ADA.

They are differentiable: the generator learns through them, and its own images do not show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distgan.config.schedule import Schedule, Variable
from distgan.config.schema import Augmentation
from distgan.losses.context import Context
from distgan.training.ada import ada

# As fractions of the image's height and width: the farthest translation, and the side of the square that is cut out.
TRANSLATION = 0.125

CUTOUT = 0.5


class Augment:
    """Applies the named augmentations in their order, with random numbers of its own for each image.

    The probability is that with which an image gets a kind, each kind by itself; of `ada`, each of its changes. It is
    a variable where the run adapts it (`training.adaptive_augmentation`).
    """

    def __init__(self, kinds: Sequence[Augmentation], probability: float | Schedule | Variable = 1.0) -> None:
        self.kinds, self.probability = tuple(kinds), probability

    def __call__(self, images: Tensor, context: Context, stream: str) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to augmented ones, whose brightness and contrast may leave that range.

        `stream` is the name of the random stream.
        """
        if not self.kinds:
            return images
        # Each kind has rows of its own, so that it does not depend on the others.
        numbers = context.uniform(stream, 7, len(images))
        chosen = None
        if isinstance(self.probability, Schedule | Variable) or self.probability < 1:
            chosen = context.uniform(f"{stream}, chosen", 3, len(images)) < context.value(self.probability)
        for kind in self.kinds:
            if kind == "ada":
                images = ada(images, context, stream, context.value(self.probability))
                continue
            if kind == "color":
                changed, row = adjust_color(images, *numbers[:3]), 0
            elif kind == "translation":
                changed, row = translate(images, *numbers[3:5]), 1
            else:
                changed, row = cut_out(images, *numbers[5:7]), 2
            images = changed if chosen is None else torch.where(_each(chosen[row]), changed, images)
        return images


def adjust_color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Adds up to ±0.5, scales the distance from gray by up to 2, then that from the mean by 0.5 to 1.5.

    The other arguments are numbers in [0, 1), one an image, shape (N,).
    """
    images = images + (_each(brightness) - 0.5)
    gray = images.mean(1, keepdim=True)
    images = gray + (images - gray) * (2 * _each(saturation))
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (_each(contrast) + 0.5)


def translate(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Moves each image by up to an eighth of its height and width, in whole pixels; the uncovered border is 0.

    The other arguments are numbers in [0, 1), one an image, shape (N,).
    """
    shifts = []
    for numbers, size in zip((vertical, horizontal), images.shape[2:], strict=True):
        farthest = int(size * TRANSLATION + 0.5)
        shifts.append((numbers * (2 * farthest + 1)).floor().long() - farthest)
    moved: Tensor = _Translation.apply(images, *shifts)  # type: ignore[no-untyped-call]
    return moved


def cut_out(images: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Sets a square of half the height and width to 0, its center anywhere in the image.

    The other arguments are numbers in [0, 1), one an image, shape (N,).
    """
    inside = []
    for numbers, size in zip((vertical, horizontal), images.shape[2:], strict=True):
        side = int(size * CUTOUT + 0.5)
        first = (numbers * (size + 1 - side % 2)).floor().long() - side // 2
        places = torch.arange(size, device=images.device) - first[:, None]
        inside.append((places >= 0) & (places < side))
    rows, columns = inside
    square = (rows[:, :, None] & columns[:, None, :])[:, None]
    return images * ~square


class _Translation(torch.autograd.Function):
    """Translation by whole pixels; its backward is the translation back.

    The backward of an indexing would be a sum whose order is not fixed on GPUs.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, down: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(down, right)
        rows, rows_inside = _sources(down, images.shape[2])
        columns, columns_inside = _sources(right, images.shape[3])
        each = torch.arange(len(images), device=images.device)[:, None, None]
        moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
        inside = rows_inside[:, :, None] & columns_inside[:, None, :]
        return moved.masked_fill_(~inside[..., None], 0).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        down, right = ctx.saved_tensors
        back: Tensor = _Translation.apply(gradients[0], -down, -right)  # type: ignore[no-untyped-call]
        return back, None, None


def _sources(shifts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The source of each place of a moved line, and whether it lies inside: both (N, size)."""
    places = torch.arange(size, device=shifts.device) - shifts[:, None]
    return places.clamp(0, size - 1), (places >= 0) & (places < size)


def _each(numbers: Tensor) -> Tensor:
    return numbers[:, None, None, None]
