"""Penalties on a critic's gradient at given images. They reach the critic's weights, not where the images come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

# Images (N, C, H, W) to logits (N,), each a function of its own image only.
Critic = Callable[[Tensor], Tensor]


def gradient_penalty(critic: Critic, images: Tensor, weight: float, sides: Literal[1, 2]) -> Tensor:
    """weight · mean (‖∇ critic(x)‖₂ − 1)² over the images (Gulrajani et al. 2017, eq. 3), a scalar.

    With one side, norms below 1 cost nothing (Petzka et al. 2018, eq. 7).
    """
    excess = gradient_norms(critic, images) - 1
    if sides == 1:
        excess = excess.relu()
    return weight * excess.square().mean()


def r1_penalty(critic: Critic, real: Tensor, weight: float) -> Tensor:
    """weight/2 · mean ‖∇ critic(x)‖₂² over real images (Mescheder et al. 2018, eq. 9), a scalar."""
    return 0.5 * weight * _gradients(critic, real).square().sum(1).mean()


def gradient_norms(critic: Critic, images: Tensor) -> Tensor:
    """‖∇ critic(x)‖₂ of each image, shape (N,), itself differentiable; in float32 or better also under autocast."""
    norms: Tensor = _gradients(critic, images).norm(dim=1)
    return norms


def _gradients(critic: Critic, images: Tensor) -> Tensor:
    """∇ critic(x) of each image, shape (N, C·H·W)."""
    images = images.detach().requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return gradient.flatten(1)
