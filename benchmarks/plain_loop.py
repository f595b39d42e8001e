"""The loop that a PyTorch user would write for a DCGAN: one process, everything at torch's defaults."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from distgan.config.schedule import value_at
from distgan.config.schema import Config
from distgan.training.networks import build_networks


class PlainLoop:
    """Binary cross-entropy with noisy labels, two passes of the discriminator over the fakes, Adam as torch makes it.

    Networks, batch and learning rates are the configuration's; the images are floats, ready in memory.
    """

    def __init__(self, config: Config) -> None:
        training = config.training.model_copy(update={"channels_last": False})
        networks = build_networks(config.model_copy(update={"training": training}), torch.device("cpu"))
        self.generator, self.discriminator = networks.generator, networks.discriminator
        rates = config.optimizer
        self.generator_optimizer = _adam(self.generator, value_at(rates.generator.lr, 0))
        self.discriminator_optimizer = _adam(self.discriminator, value_at(rates.discriminator.lr, 0))
        self.latent_dim = config.latent_dim
        self.noise = float(config.objective.options.get("label_noise", 0.1))
        self.real = torch.rand(training.batch_size, config.channels, config.image_size, config.image_size) * 2 - 1

    def step(self) -> None:
        """One update of the discriminator, then one of the generator."""
        count = len(self.real)
        self.discriminator_optimizer.zero_grad()
        real_logits = self.discriminator(self.real)
        real_loss = F.binary_cross_entropy_with_logits(real_logits, 1 + self.noise * torch.rand(count))
        torch.autograd.backward(real_loss)
        fake = self.generator(torch.randn(count, self.latent_dim))
        fake_logits = self.discriminator(fake.detach())
        fake_loss = F.binary_cross_entropy_with_logits(fake_logits, -self.noise * torch.rand(count))
        torch.autograd.backward(fake_loss)
        self.discriminator_optimizer.step()

        self.generator_optimizer.zero_grad()
        logits = self.discriminator(fake)
        loss = F.binary_cross_entropy_with_logits(logits, torch.ones(count))
        torch.autograd.backward(loss)
        self.generator_optimizer.step()


def _adam(network: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))
