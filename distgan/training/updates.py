"""The whole loss of an update as one module with one forward, which data parallelism wraps."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.training.augmentation import Augment
from distgan.training.profiling import span

# Parts of a loss and the like, by the names that they have in the metrics; scalars.
Terms = dict[str, Tensor]


@dataclass
class TermSums:
    """The terms of a step, added up over the groups of this worker.

    Attributes:
        values: of each term the sum of its shares. Summed over all workers, it is the mean over all groups, where all
            had the term.
        groups: how many of this worker's groups had the term. An update may have no penalty.
    """

    values: Terms = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)

    def add(self, terms: Terms, share: float, groups: int = 1) -> None:
        """Adds the terms of `groups` groups, each times `share`."""
        for name, term in terms.items():
            value = term.detach() * share
            self.values[name] = self.values[name] + value if name in self.values else value
            self.groups[name] = self.groups.get(name, 0) + groups

    def replace(self, later: TermSums) -> None:
        """Takes the terms of a later update in the place of those of the same name."""
        self.values |= later.values
        self.groups |= later.groups


class DiscriminatorUpdate(nn.Module):
    """The whole loss of a discriminator update, of the augmented images: the discriminator sees no others."""

    def __init__(self, discriminator: nn.Module, objective: Objective, augment: Augment, joint_forward: bool) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.objective = objective
        self.augment = augment
        self.joint_forward = joint_forward

    def forward(
        self, real: Tensor, fake: Tensor, context: Context, *labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Terms]:
        """The loss, the logits of real and of generated images (N, ...), and the terms for the log.

        Generated images, and those between them and real ones, have the labels of the real ones.
        """

        def discriminator(images: Tensor) -> Tensor:
            logits: Tensor = self.discriminator(images, *labels)
            return logits

        real = self.augment(real, context, "augmented reals")
        fake = self.augment(fake, context, "augmented fakes")
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
        """The discriminator's loss, the generator's, the generated images, and the terms for the log."""
        objective = self.discriminator_update.objective
        context.seed_layers("discriminator latents")
        with span("generator"):
            fake = self.generator(latents, *labels)
        context.seed_layers("discriminator layers")
        with span("discriminator"):
            loss, real_logits, fake_logits, terms = self.discriminator_update(real, fake, context, *labels)
        real_logits = real_logits.detach() if objective.needs_real_logits else real_logits.new_empty(0)
        generator_loss = objective.generator_loss(fake_logits, real_logits, context)
        return loss, generator_loss, fake, terms | {"loss/generator": generator_loss}
