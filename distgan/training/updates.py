"""The whole loss of an update as one module with one forward: what data parallelism wraps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distgan.losses.objectives import Objective
from distgan.losses.rng import Purpose, StepRng
from distgan.training.augmentation import DiffAugment
from distgan.training.profiling import span

# Parts of a loss and the like, by the names that they have in the metrics; scalars.
Terms = dict[str, Tensor]


class DiscriminatorUpdate(nn.Module):
    """The whole loss of a critic update in one forward: this is what data parallelism wraps."""

    def __init__(self, critic: nn.Module, objective: Objective, augment: DiffAugment, joint_forward: bool) -> None:
        super().__init__()
        self.critic = critic
        self.objective = objective
        self.augment = augment
        self.joint_forward = joint_forward

    def forward(self, real: Tensor, fake: Tensor, draws: StepRng, *labels: Tensor) -> tuple[Tensor, Tensor, Terms]:
        """The loss, the logits of the fakes (N,), and the loss's terms for the log.

        All of them, the penalty too, are of the augmented images: the critic meets no others. Fakes, and what lies
        between them and the real images, have the labels of the real ones.
        """

        def critic(images: Tensor) -> Tensor:
            logits: Tensor = self.critic(images, *labels)
            return logits

        real = self.augment(real, draws, Purpose.AUGMENTED_REALS)
        fake = self.augment(fake, draws, Purpose.AUGMENTED_FAKES)
        draws.seed_layers(Purpose.CRITIC_LAYERS)
        if self.joint_forward:
            twice = (label.repeat(2) for label in labels)
            real_logits, fake_logits = self.critic(torch.cat([real, fake]), *twice).chunk(2)
        else:
            real_logits, fake_logits = critic(real), critic(fake)
        real_logits, fake_logits = real_logits.to(draws.dtype), fake_logits.to(draws.dtype)
        adversarial = self.objective.critic_loss(real_logits, fake_logits, draws)
        penalty = self.objective.penalty(critic, real, fake, draws)
        terms = {
            "loss/discriminator": adversarial,
            "logits/real": real_logits.mean(),
            "logits/fake": fake_logits.mean(),
            "accuracy/real": (real_logits > 0).to(draws.dtype).mean(),
            "accuracy/fake": (fake_logits <= 0).to(draws.dtype).mean(),
        }
        if penalty is None:
            if self.objective.penalised:  # on other updates: the adversarial part has a value on all of them
                terms["loss/adversarial"] = adversarial
            return adversarial, fake_logits, terms
        loss = adversarial + penalty.loss
        terms |= {
            "loss/discriminator": loss,
            "loss/adversarial": adversarial,
            "loss/penalty": penalty.loss,
            "penalty/norm": penalty.norm,
        }
        return loss, fake_logits, terms


class SimultaneousUpdate(nn.Module):
    """Both losses from one forward of each network, as one module: one all-reduce brings both networks' gradients."""

    def __init__(self, generator: nn.Module, critic_update: DiscriminatorUpdate) -> None:
        super().__init__()
        self.generator = generator
        self.critic_update = critic_update

    def forward(
        self, real: Tensor, latents: Tensor, draws: StepRng, *labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Terms]:
        """The critic's loss, the generator's, the fakes that lie between them, and the terms for the log."""
        draws.seed_layers(Purpose.CRITIC_LATENTS)
        with span("generator"):
            fake = self.generator(latents, *labels)
        with span("critic"):
            loss, fake_logits, terms = self.critic_update(real, fake, draws, *labels)
        generator_loss = self.critic_update.objective.generator_loss(fake_logits)
        return loss, generator_loss, fake, terms | {"loss/generator": generator_loss}
