"""What the two networks minimise. An objective is a set of pure functions of logits, images and draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

from distgan.training.draws import Draws, Purpose

# Keras clips probabilities to [1e-7, 1 - 1e-7]; on logits that is ln((1 - 1e-7) / 1e-7).
LOGIT_BOUND = 16.118

# Images (N, C, H, W) to logits (N,); the labels of a conditional critic are bound already.
Critic = Callable[[Tensor], Tensor]


class Objective(Protocol):
    """The losses of both updates. All are means over the images of one group."""

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: Draws) -> Tensor:
        """The adversarial part of the critic's loss, a scalar; logits have shape (N,)."""
        ...

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor | None:
        """The weighted penalty on the critic's gradient, a scalar; None where the objective has none."""
        ...

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """The generator's loss, a scalar."""
        ...


class BinaryCrossEntropy:
    """The non-saturating GAN loss (Goodfellow et al. 2014) on logits, with noisy and flipped labels.

    Real targets are 1 + label_noise·U(0, 1), fake ones −label_noise·U(0, 1); each is exchanged for the other
    kind with probability label_flips. The critic's loss is the mean of its two halves. Targets outside [0, 1]
    leave the loss without a minimum, so the critic's logits are clamped to ±16.118; its loss may be negative.
    """

    penalised = False

    def __init__(
        self,
        *,
        label_noise: Annotated[float, Ge(0), Le(1)] = 0.1,
        label_flips: Annotated[float, Ge(0), Le(0.5)] = 0.0,
    ) -> None:
        self.label_noise = label_noise
        self.label_flips = label_flips

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: Draws) -> Tensor:
        count = len(real_logits)
        noise = self.label_noise * draws.uniform(Purpose.LABEL_NOISE, 2, count)
        real_targets, fake_targets = 1 + noise[0], -noise[1]
        if self.label_flips > 0:
            flips = draws.uniform(Purpose.LABEL_FLIPS, 2, count) < self.label_flips
            real_targets = torch.where(flips[0], -noise[0], real_targets)
            fake_targets = torch.where(flips[1], 1 + noise[1], fake_targets)
        real_loss = F.binary_cross_entropy_with_logits(_bounded(real_logits), real_targets)
        fake_loss = F.binary_cross_entropy_with_logits(_bounded(fake_logits), fake_targets)
        return 0.5 * (real_loss + fake_loss)

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor | None:
        return None

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


class WassersteinGradientPenalty:
    """WGAN-GP (Gulrajani et al. 2017): mean D(fake) − mean D(real) + gp_weight · mean (‖∇D(x̂)‖₂ − 1)².

    x̂ = x + α (x_fake − x) with one α an image, uniform in [0, 1) or, as some published code has it, standard
    normal. The generator's loss is −mean D(fake).
    """

    penalised = True

    def __init__(
        self,
        *,
        gp_weight: Annotated[float, Ge(0), Le(1e6)] = 10.0,
        interpolation: Literal["uniform", "normal"] = "uniform",
    ) -> None:
        self.gp_weight = gp_weight
        self.interpolation = interpolation

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: Draws) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, draws: Draws) -> Tensor | None:
        draw = draws.uniform if self.interpolation == "uniform" else draws.normal
        alpha = draw(Purpose.INTERPOLATION, len(real), 1, 1, 1)
        norms = gradient_norms(critic, real + alpha * (fake - real))
        return self.gp_weight * (norms - 1).square().mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


def gradient_norms(critic: Critic, images: Tensor) -> Tensor:
    """‖∇ critic(x)‖₂ of each image, shape (N,), itself differentiable; in float32 or better also under autocast."""
    images = images.detach().requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        logits = critic(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return norms


def _bounded(logits: Tensor) -> Tensor:
    return logits.clamp(-LOGIT_BOUND, LOGIT_BOUND)
