"""The hinge loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.losses.penalties import Discriminator, Penalty, R1Weight, r1_penalty


class Hinge(Objective):
    """The hinge loss (Lim and Ye 2017; Miyato et al. 2018): mean max(0, 1 − D(real)) + mean max(0, 1 + D(fake)).

    The generator's loss is −mean D(fake). `r1_weight` adds the R1 penalty.
    """

    chance_loss = 2.0

    def __init__(self, *, r1_weight: R1Weight = 0.0) -> None:
        self.r1_weight = r1_weight
        self.penalized = r1_weight > 0

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return -fake.mean()

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        return r1_penalty(discriminator, real, context.value(self.r1_weight)) if self.penalized else None
