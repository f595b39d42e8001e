"""The exponential moving average of a generator, which is what gets evaluated and sampled."""

from __future__ import annotations

import copy

import torch
from torch import nn

from distgan.config.schema import EmaConfig


class ExponentialMovingAverage:
    """Averages parameters and running statistics with a half-life in images (Karras et al. 2018, 2020).

    Attributes:
        network: the averaged generator, in evaluation mode.
    """

    def __init__(self, generator: nn.Module, config: EmaConfig) -> None:
        self.network = copy.deepcopy(generator).eval().requires_grad_(False)
        self._config = config

    def decay(self, images_seen: int, images: int) -> float:
        """The weight of the old average after `images` more, in [0, 1); 0 makes the average follow."""
        half_life = self._config.half_life_kimg * 1000
        if self._config.ramp_up is not None:
            half_life = min(half_life, images_seen * self._config.ramp_up)
        return 0.5 ** (images / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, generator: nn.Module, images_seen: int, images: int) -> None:
        """Moves the average towards `generator`, for a step that consumed `images` real images."""
        weight = 1.0 - self.decay(images_seen, images)
        average = [*self.network.parameters(), *self.network.buffers()]
        current = [*generator.parameters(), *generator.buffers()]
        floating = [(a, c) for a, c in zip(average, current, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floating], [c for _, c in floating], weight)
        for a, c in zip(average, current, strict=True):
            if not a.is_floating_point():
                a.copy_(c)
