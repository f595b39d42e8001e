"""An objective of your own that compares pairs: the generator's loss takes logits of real images too.

    export PYTHONPATH=$PWD/examples
    distgan train quickstart data.url=bricks discriminator.network=wgan_gp \\
        "objective={name: relativistic:Relativistic, gamma: 1}" --no-ray --name relativistic
"""

from __future__ import annotations

import math
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from distgan.losses import Context, Discriminator, Objective, Penalty, r1_penalty


class Relativistic(Objective):
    """The relativistic pairing loss (Jolicoeur-Martineau 2019) with R1 and R2 penalties (Huang et al. 2024).

    With real image i and generated image i as a pair, the discriminator's loss is mean softplus(D(fake) − D(real)) and
    the generator's mean softplus(D(real) − D(fake)), the latter of fresh real images. R1 + R2 is gamma/2 · (mean
    ‖∇D(real)‖² + mean ‖∇D(fake)‖²).
    """

    needs_real_logits = True  # so each generator update reads a batch of real images of its own
    chance_loss = math.log(2)

    def __init__(self, *, gamma: Annotated[float, Ge(0)] = 1.0) -> None:
        self.gamma = gamma
        self.penalized = gamma > 0

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return F.softplus(fake - real).mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return F.softplus(real - fake).mean()

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        if not self.penalized:
            return None
        r1, r2 = (r1_penalty(discriminator, images, self.gamma) for images in (real, fake))
        return Penalty(r1.loss + r2.loss, (r1.norm + r2.norm) / 2)

    def accuracies(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Only differences of logits mean anything here: the share of pairs in the right order."""
        return {"pairs": (real > fake).to(real.dtype).mean()}
