"""Running statistics of batch normalisation that do not depend on how groups are spread over workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from distgan.training.world import World


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether any layer normalises by statistics of the batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


class RunningStatistics:
    """Advances a network's running statistics by the mean over all groups of an update.

    Each group starts from the update's initial statistics; `finish` averages where they arrive, over all groups
    of all workers.
    """

    def __init__(self, network: nn.Module, num_groups: int, world: World) -> None:
        layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self._buffers = [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()]
        self._counters = [buffer for layer in layers for buffer in layer.buffers() if not buffer.is_floating_point()]
        self._num_groups, self._world = num_groups, world
        self._start: list[Tensor] = []
        self._total: list[Tensor] = []

    @torch.no_grad()
    def begin(self) -> None:
        """Marks the start of an update."""
        self._start = [buffer.clone() for buffer in (*self._buffers, *self._counters)]
        self._total = [torch.zeros_like(buffer) for buffer in self._buffers]

    @contextmanager
    def group(self) -> Iterator[None]:
        """Around all training forwards of one group."""
        self._restore()
        yield
        with torch.no_grad():
            for total, buffer in zip(self._total, self._buffers, strict=True):
                total.add_(buffer)

    @torch.no_grad()
    def finish(self) -> None:
        """Sets the statistics to the mean over all groups; one all-reduce."""
        if not self._buffers:
            return
        flat = self._world.all_reduce(torch.cat([total.flatten() for total in self._total])) / self._num_groups
        for buffer, mean in zip(self._buffers, torch.split(flat, [b.numel() for b in self._buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around training forwards that leave the statistics as they are."""
        self.begin()
        yield
        self._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for buffer, start in zip((*self._buffers, *self._counters), self._start, strict=True):
            buffer.copy_(start)
