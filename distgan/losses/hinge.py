"""The hinge loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.losses.penalties import Discriminator, Penalty, PenaltyEvery, R1Weight, R2Weight, ZeroCenteredPenalties


class Hinge(Objective):
    """The hinge loss (Lim and Ye 2017; Miyato et al. 2018): mean max(0, 1 − D(real)) + mean max(0, 1 + D(fake)).

    The generator's loss is −mean D(fake). `r1_weight` and `r2_weight` add the R1 and the R2 penalty.
    """

    chance_loss = 2.0

    def __init__(
        self, *, r1_weight: R1Weight = 0.0, r2_weight: R2Weight = 0.0, penalty_every: PenaltyEvery = 1
    ) -> None:
        self.penalties = ZeroCenteredPenalties(r1_weight, r2_weight, penalty_every)
        self.penalized = bool(self.penalties)

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return -fake.mean()

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        return self.penalties(discriminator, real, fake, context)
