"""The relativistic pairing loss with R1 and R2 penalties, that of R3GAN."""

from __future__ import annotations

import math
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from distgan.config.schedule import Scheduled
from distgan.config.section import Mutable
from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.losses.penalties import Discriminator, Penalty, PenaltyEvery, R1Weight, R2Weight, ZeroCenteredPenalties


class RelativisticPairing(Objective):
    """RpGAN (Jolicoeur-Martineau 2019) with both zero-centered penalties (R3GAN, Huang et al. 2024).

    A real image and the generated one at the same place of a group are a pair. The discriminator's loss is
    mean softplus(D(fake) − D(real)); the generator's is mean softplus(D(real) − D(fake)), with fresh real images.
    The penalties are taken at the images that the discriminator sees, so after augmentation.
    """

    needs_real_logits = True
    chance_loss = math.log(2)

    def __init__(
        self,
        *,
        gamma: Annotated[
            Scheduled, Ge(0), Le(1e6), Mutable(switch=True), Doc("factor of both penalties; 0: none")
        ] = 1.0,
        r1_weight: R1Weight = 1.0,
        r2_weight: R2Weight = 1.0,
        penalty_every: PenaltyEvery = 1,
    ) -> None:
        self.gamma = gamma
        self.penalties = ZeroCenteredPenalties(r1_weight, r2_weight, penalty_every)
        self.penalized = gamma > 0 and bool(self.penalties)

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return F.softplus(fake - real).mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return F.softplus(real - fake).mean()

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        found = self.penalties(discriminator, real, fake, context) if self.penalized else None
        return None if found is None else Penalty(context.value(self.gamma) * found.loss, found.norm)

    def accuracies(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The share of pairs in order: only differences of logits have a meaning."""
        return {"pairs": (real > fake).to(real.dtype).mean()}
