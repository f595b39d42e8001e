"""Running statistics of batch normalisation that do not depend on how groups are spread over workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    Each group starts from the update's initial statistics; `finish_statistics` averages where they arrive, over all
    groups of all workers.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self.buffers = [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()]
        self._counters = [buffer for layer in layers for buffer in layer.buffers() if not buffer.is_floating_point()]
        self._start: list[Tensor] = []
        self.totals: list[Tensor] = []

    @torch.no_grad()
    def begin(self) -> None:
        """Marks the start of an update."""
        self._start = [buffer.clone() for buffer in (*self.buffers, *self._counters)]
        self.totals = [torch.zeros_like(buffer) for buffer in self.buffers]

    @contextmanager
    def group(self) -> Iterator[None]:
        """Around all training forwards of one group."""
        self._restore()
        yield
        with torch.no_grad():
            for total, buffer in zip(self.totals, self.buffers, strict=True):
                total.add_(buffer)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around training forwards that leave the statistics as they are."""
        self.begin()
        yield
        self._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for buffer, start in zip((*self.buffers, *self._counters), self._start, strict=True):
            buffer.copy_(start)


@torch.no_grad()
def finish_statistics(networks: Sequence[RunningStatistics], num_groups: int, world: World) -> None:
    """Sets the statistics of all `networks` to their means over all groups; one all-reduce for them together."""
    buffers = [buffer for network in networks for buffer in network.buffers]
    if not buffers:
        return
    totals = torch.cat([total.flatten() for network in networks for total in network.totals])
    means = torch.split(world.all_reduce(totals) / num_groups, [buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))
