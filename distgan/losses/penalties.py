"""Penalties on a discriminator's gradient at given images. Their own gradient reaches its weights only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from distgan.config.schedule import Scheduled
from distgan.config.section import Mutable
from distgan.losses.context import Context

# Images (N, C, H, W) to logits (N, ...), each image's a function of that image only.
Discriminator = Callable[[Tensor], Tensor]

_Weight = Annotated[Scheduled, Ge(0), Le(1e6), Mutable(switch=True)]

R1Weight = Annotated[_Weight, Doc("weight of the R1 penalty, at real images; 0: none")]

R2Weight = Annotated[_Weight, Doc("weight of the R2 penalty, at generated images; 0: none")]

PenaltyEvery = Annotated[
    int, Ge(1), Le(1000), Doc("penalties are taken on every n-th discriminator update, n times as heavy")
]


class Penalty(NamedTuple):
    """The term of the discriminator's loss, and for the log the mean norm of the gradient ∇D; both scalars."""

    loss: Tensor
    norm: Tensor


@dataclass(frozen=True)
class ZeroCenteredPenalties:
    """R1 and R2: weight/2 · mean ‖∇D(x)‖₂² over real and over generated images (Mescheder et al. 2018, eq. 9).

    Lazy with `period` above 1 (Karras et al. 2020, section 3.1). The norm in the log is the mean over all images.
    """

    r1_weight: Scheduled
    r2_weight: Scheduled
    period: int = 1

    def __bool__(self) -> bool:
        """Whether some updates have a penalty."""
        return self.r1_weight > 0 or self.r2_weight > 0

    def __call__(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        """The penalty of an update; None on updates without one."""
        if not context.every(self.period):
            return None
        sides = [(images, weight) for images, weight in ((real, self.r1_weight), (fake, self.r2_weight)) if weight > 0]
        if not sides:
            return None
        terms = [r1_penalty(discriminator, images, self.period * context.value(weight)) for images, weight in sides]
        losses, norms = (torch.stack(values) for values in zip(*terms, strict=True))
        return Penalty(losses.sum(), norms.mean())


def gradient_penalty(discriminator: Discriminator, images: Tensor, weight: float, sides: Literal[1, 2]) -> Penalty:
    """weight · mean (‖∇D(x)‖₂ − 1)² over the images (Gulrajani et al. 2017, eq. 3).

    With one side, norms below 1 cost nothing (Petzka et al. 2018, eq. 7).
    """
    norms = gradient_norms(discriminator, images)
    excess = norms - 1
    if sides == 1:
        excess = excess.relu()
    return Penalty(weight * excess.square().mean(), norms.detach().mean())


def r1_penalty(discriminator: Discriminator, real: Tensor, weight: float) -> Penalty:
    """weight/2 · mean ‖∇D(x)‖₂² over real images (Mescheder et al. 2018, eq. 9)."""
    squares = image_gradients(discriminator, real).square().sum(1)
    return Penalty(0.5 * weight * squares.mean(), squares.detach().sqrt().mean())


def gradient_norms(discriminator: Discriminator, images: Tensor) -> Tensor:
    """‖∇D(x)‖₂ of each image, shape (N,), itself differentiable; in float32 or better also under autocast."""
    norms: Tensor = image_gradients(discriminator, images).norm(dim=1)
    return norms


def image_gradients(discriminator: Discriminator, images: Tensor) -> Tensor:
    """∇D(x) of each image, shape (N, C·H·W), where D(x) is the sum of the image's logits.

    In float32 or better: autocast is off, and images that a generator made under it are converted.
    """
    images = images.detach().to(torch.promote_types(images.dtype, torch.float32))
    with torch.autocast(images.device.type, enabled=False):
        if torch.compiler.is_compiling():
            # Inside of a compiled function the compiler differentiates this gradient again; the other kind it refuses.
            compiled: Tensor = torch.func.grad(lambda x: discriminator(x).sum())(images)
            return compiled.flatten(1)
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.flatten(1)
