"""The exponential moving average of a generator, which is evaluated and sampled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import compress

import torch
from torch import Tensor, nn

from distgan.config.schedule import value_at
from distgan.config.schema import EmaConfig
from distgan.training.batch_statistics import PowerIteration
from distgan.training.prepared import GraphBackend


class ExponentialMovingAverage:
    """Averages parameters and running statistics with a half-life in images (Karras et al. 2018, 2020).

    The vectors of spectral normalization are not averaged: an average of unit vectors is shorter, so the weights would
    be too large. Each update ends in a power iteration with the averaged weights instead.

    Attributes:
        network: the averaged generator, in evaluation mode.
    """

    def __init__(self, generator: nn.Module, config: EmaConfig) -> None:
        self.network = copy.deepcopy(generator).eval().requires_grad_(False)
        self._config = config
        self._power_iteration = PowerIteration(self.network)
        vectors = {id(vector) for vector in self._power_iteration.vectors}
        self._averaged = [id(tensor) not in vectors for tensor in _tensors(self.network)]
        self._graph: tuple[Tensor, Callable[[], object]] | None = None

    def decay(self, images_seen: int, images: int) -> float:
        """The weight of the old average after `images` more, in [0, 1); 0 copies the generator."""
        half_life = 1000 * value_at(self._config.half_life_kimg, images_seen / 1000)
        if self._config.ramp_up is not None:
            half_life = min(half_life, images_seen * self._config.ramp_up)
        return 0.5 ** (images / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, generator: nn.Module, images_seen: int, images: int) -> None:
        """Moves the average towards `generator`, for a step of `images` real images."""
        weight = 1.0 - self.decay(images_seen, images)
        if self._graph is None:
            self._move(generator, weight)
        else:
            fixed, replay = self._graph
            fixed.fill_(weight)
            replay()

    @torch.no_grad()
    def capture(self, generator: nn.Module, graphs: GraphBackend) -> None:
        """Updates towards this generator are a graph from now on; the average stays as it is."""
        kept = [tensor.clone() for tensor in _tensors(self.network)]
        fixed = torch.zeros((), device=kept[0].device, dtype=kept[0].dtype)
        graphs.warm_up(lambda: self._move(generator, fixed))
        self._graph = fixed, graphs.capture(lambda: self._move(generator, fixed))
        for tensor, value in zip(_tensors(self.network), kept, strict=True):
            tensor.copy_(value)

    @torch.no_grad()
    def _move(self, generator: nn.Module, weight: float | Tensor) -> None:
        pairs = list(compress(zip(_tensors(self.network), _tensors(generator), strict=True), self._averaged))
        floating = [(average, current) for average, current in pairs if average.is_floating_point()]
        averages, currents = [average for average, _ in floating], [current for _, current in floating]
        torch._foreach_lerp_(averages, currents, [weight] * len(averages) if isinstance(weight, Tensor) else weight)
        for average, current in pairs:
            if not average.is_floating_point():
                average.copy_(current)
        self._power_iteration.advance()


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
