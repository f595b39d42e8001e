"""Penalties on a critic's gradient at given images. They reach the critic's weights, not where the images come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

# Images (N, C, H, W) to logits (N,), each a function of its own image only.
Discriminator = Callable[[Tensor], Tensor]


class Penalty(NamedTuple):
    """What is added to a critic's loss, and the mean norm ‖∇ critic(x)‖₂ that it was taken of, for the log; scalars."""

    loss: Tensor
    norm: Tensor


def gradient_penalty(critic: Discriminator, images: Tensor, weight: float, sides: Literal[1, 2]) -> Penalty:
    """weight · mean (‖∇ critic(x)‖₂ − 1)² over the images (Gulrajani et al. 2017, eq. 3).

    With one side, norms below 1 cost nothing (Petzka et al. 2018, eq. 7).
    """
    norms = gradient_norms(critic, images)
    excess = norms - 1
    if sides == 1:
        excess = excess.relu()
    return Penalty(weight * excess.square().mean(), norms.detach().mean())


def r1_penalty(critic: Discriminator, real: Tensor, weight: float) -> Penalty:
    """weight/2 · mean ‖∇ critic(x)‖₂² over real images (Mescheder et al. 2018, eq. 9)."""
    squares = _gradients(critic, real).square().sum(1)
    return Penalty(0.5 * weight * squares.mean(), squares.detach().sqrt().mean())


def gradient_norms(critic: Discriminator, images: Tensor) -> Tensor:
    """‖∇ critic(x)‖₂ of each image, shape (N,), itself differentiable; in float32 or better also under autocast."""
    norms: Tensor = _gradients(critic, images).norm(dim=1)
    return norms


def _gradients(critic: Discriminator, images: Tensor) -> Tensor:
    """∇ critic(x) of each image, shape (N, C·H·W)."""
    images = images.detach().requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradient.flatten(1)
