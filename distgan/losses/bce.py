"""The non-saturating loss of the first GAN, by binary cross-entropy."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.losses.penalties import Discriminator, Penalty, PenaltyEvery, R1Weight, R2Weight, ZeroCenteredPenalties

# Keras clips probabilities to [1e-7, 1 - 1e-7]; on logits that is ln((1 - 1e-7) / 1e-7).
LOGIT_BOUND = 16.118


class BinaryCrossEntropy(Objective):
    """The non-saturating GAN loss (Goodfellow et al. 2014) on logits, with noisy and flipped labels.

    Real targets are 1 + label_noise·U(0, 1), fake ones −label_noise·U(0, 1); each is exchanged for the other
    kind with probability label_flips. The discriminator's loss is the mean of its two halves, not their sum.
    `r1_weight` and `r2_weight` add the R1 and the R2 penalty.

    With label noise targets leave [0, 1], and the loss has no minimum: the discriminator's logits are then clamped to
    ±16.118, as in Keras, and its loss may be negative. Without noise they are not: a clamped logit has no gradient, and
    a discriminator that is surely wrong would not learn.
    """

    chance_loss = math.log(2)

    def __init__(
        self,
        *,
        label_noise: Annotated[
            float, Ge(0), Le(1), Doc("width of the uniform noise on the discriminator's targets")
        ] = 0.1,
        label_flips: Annotated[float, Ge(0), Le(0.5), Doc("probability with which a target is the other one")] = 0.0,
        r1_weight: R1Weight = 0.0,
        r2_weight: R2Weight = 0.0,
        penalty_every: PenaltyEvery = 1,
    ) -> None:
        self.label_noise = label_noise
        self.label_flips = label_flips
        self.penalties = ZeroCenteredPenalties(r1_weight, r2_weight, penalty_every)
        self.penalized = bool(self.penalties)

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        noise = self.label_noise * context.uniform("label noise", 2, *real.shape)
        real_targets, fake_targets = 1 + noise[0], -noise[1]
        if self.label_flips > 0:
            flips = context.uniform("label flips", 2, *real.shape) < self.label_flips
            real_targets = torch.where(flips[0], -noise[0], real_targets)
            fake_targets = torch.where(flips[1], 1 + noise[1], fake_targets)
        if self.label_noise > 0:
            real, fake = _bounded(real), _bounded(fake)
        real_loss = F.binary_cross_entropy_with_logits(real, real_targets)
        fake_loss = F.binary_cross_entropy_with_logits(fake, fake_targets)
        return 0.5 * (real_loss + fake_loss)

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        return self.penalties(discriminator, real, fake, context)


def _bounded(logits: Tensor) -> Tensor:
    return logits.clamp(-LOGIT_BOUND, LOGIT_BOUND)
