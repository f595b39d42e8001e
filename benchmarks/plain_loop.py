"""The loop that a PyTorch user would write for a preset: one process, eager, everything at torch's defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.batches import Batch
from distgan.config.optimizer import AdamConfig, RMSPropConfig
from distgan.config.schedule import value_at
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.training.networks import build_networks, build_objective

Loss = Callable[[Tensor, Tensor], Tensor]


def bce_losses(noise: float = 0.0) -> tuple[Loss, Loss]:
    """The DCGAN tutorial's, with noise on the discriminator's targets."""

    def discriminator(real: Tensor, fake: Tensor) -> Tensor:
        real_loss = F.binary_cross_entropy_with_logits(real, 1 + noise * torch.rand_like(real))
        return real_loss + F.binary_cross_entropy_with_logits(fake, -noise * torch.rand_like(fake))

    return discriminator, lambda fake, _: F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


# The discriminator's loss of real and fake logits, and the generator's of fake and real ones.
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "hinge": (lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(), lambda fake, _: -fake.mean()),
    "wgan": (lambda real, fake: fake.mean() - real.mean(), lambda fake, _: -fake.mean()),
    "wgan_gp": (lambda real, fake: fake.mean() - real.mean(), lambda fake, _: -fake.mean()),
    "rpgan": (lambda real, fake: F.softplus(fake - real).mean(), lambda fake, real: F.softplus(real - fake).mean()),
}


def gradient(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The discriminator's gradient at images, (N, C·H·W)."""
    images = images.detach().requires_grad_()
    (found,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return found.flatten(1)


class PlainLoop:
    """Adam or RMSProp as torch makes them, the generated images of a single discriminator update used for both.

    Networks, batch, rates and weights of penalties are the configuration's at its start. The images are floats, ready
    in memory, pinned for a GPU. There is no average of the generator's weights, and nothing is logged.

    Raises UserError for an objective of a user's own, and for augmentation.
    """

    def __init__(self, config: Config, device: torch.device, batches: Sequence[Batch]) -> None:
        name, self.objective = config.objective.name, cast(Any, build_objective(config))
        if name != "bce" and name not in LOSSES:
            raise UserError(f"objective.name={name}: the plain loop knows bce, {', '.join(LOSSES)}")
        if config.training.augment:
            raise UserError("training.augment: the plain loop has no augmentation; use training.augment=[]")
        plain = config.training.model_copy(update={"channels_last": False, "precision": "float32"})
        networks = build_networks(config.model_copy(update={"training": plain}), device)
        self.generator, self.discriminator = networks.generator, networks.discriminator
        self.generator_optimizer = _optimizer(config.optimizer.generator, self.generator)
        self.discriminator_optimizer = _optimizer(config.optimizer.discriminator, self.discriminator)
        self.losses = bce_losses(self.objective.label_noise) if name == "bce" else LOSSES[name]
        self.config, self.device = config, device
        floats = [(images.float() / 127.5 - 1, labels) for images, labels in batches]
        self.batches = [(images.pin_memory() if device.type == "cuda" else images, lab) for images, lab in floats]
        self.taken = self.updates = 0

    def step(self) -> None:
        """The discriminator's updates, then one of the generator."""
        how, relativistic = self.config.objective, self.objective.needs_real_logits
        real, labels = self._next()
        for number in range(how.critic_steps):
            if number and how.critic_batches == "fresh":
                real, labels = self._next()
            fake = self._fakes(labels)
            self._discriminator_update(real, fake, labels)
        if relativistic:
            real, labels = self._next()
        if relativistic or how.critic_steps > 1 or how.generator_batch_multiple > 1:
            labels = [label.repeat(how.generator_batch_multiple) for label in labels]
            real = real.repeat(how.generator_batch_multiple, 1, 1, 1)
            fake = self._fakes(labels, how.generator_batch_multiple)
        self.generator_optimizer.zero_grad()
        fake_logits = self.discriminator(fake, *labels)
        with torch.no_grad():
            real_logits = self.discriminator(real, *labels) if relativistic else fake_logits
        torch.autograd.backward(self.losses[1](fake_logits, real_logits))
        self.generator_optimizer.step()

    def _discriminator_update(self, real: Tensor, fake: Tensor, labels: Sequence[Tensor]) -> None:
        fake = fake.detach()
        self.discriminator_optimizer.zero_grad()
        loss = self.losses[0](self.discriminator(real, *labels), self.discriminator(fake, *labels))
        torch.autograd.backward(loss + self.penalty(real, fake, labels))
        self.discriminator_optimizer.step()
        if self.objective.clip_value is not None:
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(-self.objective.clip_value, self.objective.clip_value)
        self.updates += 1

    def penalty(self, real: Tensor, fake: Tensor, labels: Sequence[Tensor]) -> Tensor:
        """The weighted penalty of this update on the discriminator's gradient, a scalar; 0 without one."""
        how, objective = self.config.objective, self.objective

        def discriminator(images: Tensor) -> Tensor:
            logits: Tensor = self.discriminator(images, *labels)
            return logits

        if how.name == "wgan_gp":
            if self.updates % objective.penalty_every:
                return real.new_zeros(())
            alpha = torch.rand(len(real), 1, 1, 1, device=self.device)
            excess: Tensor = gradient(discriminator, real + alpha * (fake - real)).norm(dim=1) - 1
            excess = excess.relu() if objective.gp_sides == 1 else excess
            weight: float = objective.penalty_every * value_at(objective.gp_weight, 0)
            return weight * excess.square().mean()
        penalty = real.new_zeros(())
        if objective.penalized and self.updates % objective.penalties.period == 0:
            factor = objective.penalties.period * value_at(getattr(objective, "gamma", 1.0), 0) / 2
            for images, weight in ((real, objective.penalties.r1_weight), (fake, objective.penalties.r2_weight)):
                if weight > 0:
                    squares = gradient(discriminator, images).square().sum(1)
                    penalty = penalty + factor * value_at(weight, 0) * squares.mean()
        return penalty

    def _next(self) -> tuple[Tensor, Sequence[Tensor]]:
        images, labels = self.batches[self.taken % len(self.batches)]
        self.taken += 1
        given = [] if self.config.num_classes is None else [labels.to(self.device, non_blocking=True)]
        return images.to(self.device, non_blocking=True), given

    def _fakes(self, labels: Sequence[Tensor], multiple: int = 1) -> Tensor:
        count = self.config.training.batch_size * multiple
        fakes: Tensor = self.generator(torch.randn(count, self.config.latent_dim, device=self.device), *labels)
        return fakes


def _optimizer(config: AdamConfig | RMSPropConfig, network: nn.Module) -> torch.optim.Optimizer:
    lr = value_at(config.lr, 0)
    if isinstance(config, AdamConfig):
        return torch.optim.Adam(network.parameters(), lr=lr, betas=(config.beta1, value_at(config.beta2, 0)))
    return torch.optim.RMSprop(network.parameters(), lr=lr, alpha=value_at(config.alpha, 0))
