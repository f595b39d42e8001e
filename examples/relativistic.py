"""An objective of your own that compares images: the generator's loss takes logits of real images too.

    export PYTHONPATH=$PWD/examples
    distgan train quickstart data.url=bricks discriminator.network=wgan_gp \\
        "objective={name: relativistic:RelativisticAverage}" --no-ray --name relativistic
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from distgan.losses import Context, Objective


class RelativisticAverage(Objective):
    """Each image against the mean of the other kind (Jolicoeur-Martineau 2019, RaSGAN), within a group of the batch.

    The discriminator's loss is mean softplus(mean D(fake) − D(real)) + mean softplus(D(fake) − mean D(real)), the
    generator's the same with real and generated images exchanged. Pairs, with penalties, are `objective.name=rpgan`.
    """

    needs_real_logits = True  # so each generator update reads a batch of real images of its own
    chance_loss = 2 * math.log(2)

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return F.softplus(real.mean() - fake).mean() + F.softplus(real - fake.mean()).mean()

    def accuracies(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Only differences of logits mean anything here."""
        right = {"real": real > fake.mean(), "fake": fake < real.mean()}
        return {name: values.to(real.dtype).mean() for name, values in right.items()}
