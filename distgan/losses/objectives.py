"""What the two networks minimise. An objective is a set of pure functions of logits, images and draws."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor
from typing_extensions import Doc

from distgan.config.section import Mutable
from distgan.losses.penalties import Discriminator, Penalty, gradient_penalty, r1_penalty
from distgan.losses.rng import Purpose, StepRng

# Keras clips probabilities to [1e-7, 1 - 1e-7]; on logits that is ln((1 - 1e-7) / 1e-7).
LOGIT_BOUND = 16.118

R1Weight = Annotated[
    float, Ge(0), Le(1e6), Mutable(switch=True), Doc("of the penalty on the gradient at real images; 0: none")
]


class Objective(ABC):
    """The losses of both updates, of unbounded logits. All are means over the images of one group.

    Attributes:
        penalised: whether the critic's loss has a penalty on its gradient, which is an image's own: such a critic
            has no batch statistics, and the penalty needs a forward of its own.
        clip_value: after each update of the critic all its parameters are clipped to [-clip_value, clip_value];
            None leaves them.
        chance_loss: the critic's adversarial loss while it gives every image the logit 0. Whoever sets it says that
            a positive logit means "real", and that the loss sinks to 0 for a critic that is always right. None
            where neither holds: of a Wasserstein critic only differences of logits mean anything.
    """

    penalised: bool = False
    clip_value: float | None = None
    chance_loss: float | None = None

    @abstractmethod
    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: StepRng) -> Tensor:
        """The adversarial part of the critic's loss, a scalar; logits have shape (N,)."""

    @abstractmethod
    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """The generator's loss, a scalar; logits have shape (N,)."""

    def penalty(self, critic: Discriminator, real: Tensor, fake: Tensor, draws: StepRng) -> Penalty | None:
        """The weighted penalty on the critic's gradient; None where the objective has none, or none on this update.

        So a penalty can be lazy: taken on every n-th `draws.update` only. Metrics have its mean over the updates that
        had one. `critic` maps images (N, C, H, W) to logits (N,); `real` and `fake` are the images that it sees in this
        update, augmented where the configuration says so.
        """
        return None


class BinaryCrossEntropy(Objective):
    """The non-saturating GAN loss (Goodfellow et al. 2014) on logits, with noisy and flipped labels.

    Real targets are 1 + label_noise·U(0, 1), fake ones −label_noise·U(0, 1); each is exchanged for the other
    kind with probability label_flips. The critic's loss is the mean of its two halves, not their sum. `r1_weight` adds
    the R1 penalty.

    With label noise targets leave [0, 1], and the loss has no minimum: the critic's logits are then clamped to ±16.118,
    as in Keras, and its loss may be negative. Without noise they are not: a clamped logit has no gradient, and a
    discriminator that is surely wrong would not learn.
    """

    chance_loss = math.log(2)

    def __init__(
        self,
        *,
        label_noise: Annotated[float, Ge(0), Le(1), Doc("width of the uniform noise on the critic's targets")] = 0.1,
        label_flips: Annotated[float, Ge(0), Le(0.5), Doc("probability with which a target is the other one")] = 0.0,
        r1_weight: R1Weight = 0.0,
    ) -> None:
        self.label_noise = label_noise
        self.label_flips = label_flips
        self.r1_weight = r1_weight
        self.penalised = r1_weight > 0

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: StepRng) -> Tensor:
        count = len(real_logits)
        noise = self.label_noise * draws.uniform(Purpose.LABEL_NOISE, 2, count)
        real_targets, fake_targets = 1 + noise[0], -noise[1]
        if self.label_flips > 0:
            flips = draws.uniform(Purpose.LABEL_FLIPS, 2, count) < self.label_flips
            real_targets = torch.where(flips[0], -noise[0], real_targets)
            fake_targets = torch.where(flips[1], 1 + noise[1], fake_targets)
        if self.label_noise > 0:
            real_logits, fake_logits = _bounded(real_logits), _bounded(fake_logits)
        real_loss = F.binary_cross_entropy_with_logits(real_logits, real_targets)
        fake_loss = F.binary_cross_entropy_with_logits(fake_logits, fake_targets)
        return 0.5 * (real_loss + fake_loss)

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))

    def penalty(self, critic: Discriminator, real: Tensor, fake: Tensor, draws: StepRng) -> Penalty | None:
        return r1_penalty(critic, real, self.r1_weight) if self.penalised else None


class Hinge(Objective):
    """The hinge loss (Lim and Ye 2017; Miyato et al. 2018): mean max(0, 1 − D(real)) + mean max(0, 1 + D(fake)).

    The generator's loss is −mean D(fake). `r1_weight` adds the R1 penalty.
    """

    chance_loss = 2.0

    def __init__(self, *, r1_weight: R1Weight = 0.0) -> None:
        self.r1_weight = r1_weight
        self.penalised = r1_weight > 0

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: StepRng) -> Tensor:
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()

    def penalty(self, critic: Discriminator, real: Tensor, fake: Tensor, draws: StepRng) -> Penalty | None:
        return r1_penalty(critic, real, self.r1_weight) if self.penalised else None


class Wasserstein(Objective):
    """WGAN (Arjovsky et al. 2017): mean D(fake) − mean D(real), the critic's weights clipped after each update.

    All parameters of the critic are clipped, those of its normalisation included. The generator's loss is
    −mean D(fake).
    """

    def __init__(
        self,
        *,
        clip_value: Annotated[float, Gt(0), Le(1e3), Doc("the critic's weights are clipped to this size")] = 0.01,
    ) -> None:
        self.clip_value = clip_value

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: StepRng) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class WassersteinGradientPenalty(Objective):
    """WGAN-GP (Gulrajani et al. 2017): mean D(fake) − mean D(real) + gp_weight · mean (‖∇D(x̂)‖₂ − 1)².

    x̂ = x + α (x_fake − x) with one α an image, uniform in [0, 1) or, as some published code has it, standard
    normal. With `gp_sides: 1` norms below 1 cost nothing: mean max(0, ‖∇D(x̂)‖₂ − 1)² (Petzka et al. 2018). The
    generator's loss is −mean D(fake).
    """

    penalised = True

    def __init__(
        self,
        *,
        gp_weight: Annotated[float, Ge(0), Le(1e6), Mutable(), Doc("of the gradient penalty")] = 10.0,
        gp_sides: Annotated[Literal[1, 2], Doc("1: gradients of a norm below 1 cost nothing")] = 2,
        interpolation: Annotated[
            Literal["uniform", "normal"], Doc("how a place between a real image and a fake is drawn")
        ] = "uniform",
    ) -> None:
        self.gp_weight = gp_weight
        self.gp_sides = gp_sides
        self.interpolation = interpolation

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: StepRng) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()

    def penalty(self, critic: Discriminator, real: Tensor, fake: Tensor, draws: StepRng) -> Penalty | None:
        draw = draws.uniform if self.interpolation == "uniform" else draws.normal
        alpha = draw(Purpose.INTERPOLATION, len(real), 1, 1, 1)
        return gradient_penalty(critic, real + alpha * (fake - real), self.gp_weight, self.gp_sides)


def _bounded(logits: Tensor) -> Tensor:
    return logits.clamp(-LOGIT_BOUND, LOGIT_BOUND)
