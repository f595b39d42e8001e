"""The Wasserstein loss with clipped weights."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor
from typing_extensions import Doc

from distgan.losses.context import Context
from distgan.losses.objective import Objective


class Wasserstein(Objective):
    """WGAN (Arjovsky et al. 2017): mean D(fake) − mean D(real), the weights of D clipped after each update.

    All parameters of the discriminator (a critic, in the paper) are clipped, those of its normalization included. The
    generator's loss is −mean D(fake).
    """

    def __init__(
        self,
        *,
        clip_value: Annotated[float, Gt(0), Le(1e3), Doc("largest size of the discriminator's weights")] = 0.01,
    ) -> None:
        self.clip_value = clip_value

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return -fake.mean()
