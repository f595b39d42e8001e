"""The optimisers of both networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from distgan.config.schema import AdamConfig, OptimizersConfig


@dataclass(frozen=True)
class Optimizers:
    """One optimiser a network."""

    generator: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer

    def zero_grad(self) -> None:
        """Drops the gradients of both networks."""
        self.generator.zero_grad()
        self.discriminator.zero_grad()


def build_optimizers(config: OptimizersConfig, generator: nn.Module, discriminator: nn.Module) -> Optimizers:
    """The optimisers that the configuration names, over all parameters of each network."""
    return Optimizers(_adam(config.generator, generator), _adam(config.discriminator, discriminator))


def _adam(config: AdamConfig, network: nn.Module) -> torch.optim.Optimizer:
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(network.parameters(), lr=config.lr, betas=betas, eps=config.eps, fused=True)
