"""The whole loss of an update as one module with one forward, which data parallelism wraps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.training.augmentation import DiffAugment
from distgan.training.profiling import span

# Parts of a loss and the like, by the names that they have in the metrics; scalars.
Terms = dict[str, Tensor]


class DiscriminatorUpdate(nn.Module):
    """The whole loss of a discriminator update, of the augmented images: the discriminator sees no others."""

    def __init__(
        self, discriminator: nn.Module, objective: Objective, augment: DiffAugment, joint_forward: bool
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.objective = objective
        self.augment = augment
        self.joint_forward = joint_forward

    def forward(
        self, real: Tensor, fake: Tensor, context: Context, *labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Terms]:
        """The loss, the logits of real and of generated images (N, ...), and the terms for the log.

        Generated images, and what lies between them and the real ones, have the labels of the real ones.
        """

        def discriminator(images: Tensor) -> Tensor:
            logits: Tensor = self.discriminator(images, *labels)
            return logits

        real = self.augment(real, context, "augmented reals")
        fake = self.augment(fake, context, "augmented fakes")
        context.seed_layers("discriminator layers")
        if self.joint_forward:
            twice = (label.repeat(2) for label in labels)
            real_logits, fake_logits = self.discriminator(torch.cat([real, fake]), *twice).chunk(2)
        else:
            real_logits, fake_logits = discriminator(real), discriminator(fake)
        real_logits, fake_logits = real_logits.to(context.dtype), fake_logits.to(context.dtype)
        adversarial = self.objective.discriminator_loss(real_logits, fake_logits, context)
        penalty = self.objective.penalty(discriminator, real, fake, context)
        loss = adversarial if penalty is None else adversarial + penalty.loss
        accuracies = self.objective.accuracies(real_logits.detach(), fake_logits.detach())
        terms = {
            "loss/discriminator": loss,
            "logits/real": real_logits.mean(),
            "logits/fake": fake_logits.mean(),
            **{f"accuracy/{name}": value for name, value in accuracies.items()},
        }
        if penalty is not None or self.objective.penalized:
            terms["loss/adversarial"] = adversarial
        if penalty is not None:
            terms |= {"loss/penalty": penalty.loss, "penalty/norm": penalty.norm}
        return loss, real_logits, fake_logits, terms


class SimultaneousUpdate(nn.Module):
    """Both losses from one forward of each network, as one module: one all-reduce has the gradients of both."""

    def __init__(self, generator: nn.Module, discriminator_update: DiscriminatorUpdate) -> None:
        super().__init__()
        self.generator = generator
        self.discriminator_update = discriminator_update

    def forward(
        self, real: Tensor, latents: Tensor, context: Context, *labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Terms]:
        """The discriminator's loss, the generator's, the generated images between them, and the terms for the log."""
        objective = self.discriminator_update.objective
        context.seed_layers("discriminator latents")
        with span("generator"):
            fake = self.generator(latents, *labels)
        with span("discriminator"):
            loss, real_logits, fake_logits, terms = self.discriminator_update(real, fake, context, *labels)
        real_logits = real_logits.detach() if objective.needs_real_logits else real_logits.new_empty(0)
        generator_loss = objective.generator_loss(fake_logits, real_logits, context)
        return loss, generator_loss, fake, terms | {"loss/generator": generator_loss}
