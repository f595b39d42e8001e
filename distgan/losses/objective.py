"""The base class of objectives: the losses of both updates, and their accuracies for the log."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from distgan.losses.context import Context
from distgan.losses.penalties import Discriminator, Penalty


class Objective(ABC):
    """The losses of both networks: pure functions of unbounded logits, images and a context.

    All are means over the images of one group. Logits have the shape (N, ...): one number an image, or as many as the
    discriminator gives. `real[i]` and `fake[i]` have the same label where the networks are conditional.

    Attributes:
        needs_real_logits: whether the generator's loss takes logits of real images. Each generator update then reads
            a batch of fresh real images; with `updates: simultaneous` they are those of the discriminator's update.
        penalized: whether some updates have a penalty on the discriminator's gradient. The gradient
            must depend on one image only, so batch normalization is not allowed, and the penalty needs its own forward.
        clip_value: after each discriminator update all its parameters are clipped to [-clip_value, clip_value]; None
            leaves them.
        chance_loss: the discriminator's adversarial loss while all logits are 0, for objectives whose loss falls to 0,
            and whose accuracies rise to 1, as the discriminator becomes always right. None for others: of a
            Wasserstein critic only differences of logits mean anything.
    """

    needs_real_logits: bool = False
    penalized: bool = False
    clip_value: float | None = None
    chance_loss: float | None = None

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor, context: Context) -> Tensor:
        """The adversarial part of the discriminator's loss, a scalar, of logits of real and of generated images."""

    @abstractmethod
    def generator_loss(self, fake: Tensor, real: Tensor, context: Context) -> Tensor:
        """The generator's loss, a scalar, of logits of generated images.

        `real` has the same shape and carries no gradient where `needs_real_logits` is set; otherwise it is empty.
        """

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        """The weighted penalty on the discriminator's gradient; None on updates without one.

        A lazy penalty is taken where `context.every(n)` says so; the log has its mean over the updates that had one.
        `discriminator` maps images (N, C, H, W) to logits; `real` and `fake` are the images that it sees in this
        update, augmented where the configuration says so.
        """
        return None

    def accuracies(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The discriminator's accuracies by name: scalars in [0, 1], logged as `accuracy/NAME`.

        By default the shares of real images with a positive logit, and of generated ones without.
        """
        return {"real": (real > 0).to(real.dtype).mean(), "fake": (fake <= 0).to(fake.dtype).mean()}
