"""An objective of your own with lazy regularization: the R1 penalty on every k-th discriminator update only.

    export PYTHONPATH=$PWD/examples
    distgan train quickstart data.url=bricks discriminator.network=wgan_gp \\
        "objective={name: lazy_r1:LazyR1, r1_weight: 10, every: 8}" --no-ray --name lazy
"""

from __future__ import annotations

import math
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from distgan.losses import Context, Discriminator, Objective, Penalty, Scheduled, r1_penalty


class LazyR1(Objective):
    """The non-saturating loss with R1 on every k-th update, weighted k times (Karras et al. 2020, section 3.1)."""

    penalized = True  # the discriminator must not normalize over the batch
    chance_loss = 2 * math.log(2)  # of logits that are all 0; for the warnings about training health

    # Keyword arguments are configuration keys: objective.r1_weight=20, with type, range and default.
    def __init__(self, *, r1_weight: Annotated[Scheduled, Gt(0)] = 10.0, every: Annotated[int, Ge(1)] = 16) -> None:
        self.r1_weight, self.every = r1_weight, every

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return F.softplus(-fake).mean()

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        if not context.every(self.every):
            return None
        return r1_penalty(discriminator, real, self.every * context.value(self.r1_weight))
