"""The Wasserstein loss with a gradient penalty."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from distgan.config.schedule import Scheduled
from distgan.config.section import Mutable
from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.losses.penalties import Discriminator, Penalty, PenaltyEvery, gradient_penalty


class WassersteinGradientPenalty(Objective):
    """WGAN-GP (Gulrajani et al. 2017): mean D(fake) − mean D(real) + gp_weight · mean (‖∇D(x̂)‖₂ − 1)².

    x̂ = x + α (x_fake − x) with one α an image, uniform in [0, 1) or, as some published code has it, standard
    normal. With `gp_sides: 1` norms below 1 cost nothing: mean max(0, ‖∇D(x̂)‖₂ − 1)² (Petzka et al. 2018). The
    generator's loss is −mean D(fake).
    """

    penalized = True

    def __init__(
        self,
        *,
        gp_weight: Annotated[Scheduled, Ge(0), Le(1e6), Mutable(), Doc("weight of the gradient penalty")] = 10.0,
        gp_sides: Annotated[Literal[1, 2], Doc("1: gradients of a norm below 1 cost nothing")] = 2,
        interpolation: Annotated[
            Literal["uniform", "normal"], Doc("how a place between a real image and a fake is drawn")
        ] = "uniform",
        penalty_every: PenaltyEvery = 1,
    ) -> None:
        self.gp_weight = gp_weight
        self.gp_sides = gp_sides
        self.interpolation = interpolation
        self.penalty_every = penalty_every

    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        return -fake.mean()

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        if not context.every(self.penalty_every):
            return None
        draw = context.uniform if self.interpolation == "uniform" else context.normal
        alpha = draw("interpolation", len(real), 1, 1, 1)
        between = real + alpha * (fake - real)
        weight = self.penalty_every * context.value(self.gp_weight)
        return gradient_penalty(discriminator, between, weight, self.gp_sides)
