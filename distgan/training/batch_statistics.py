"""Running statistics and power iterations, independent of how groups are spread over workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList

from distgan.distributed import Distributed
from distgan.training.sums import SumsBetweenGraphs


class PowerIteration:
    """The vectors of all spectrally normalized weights of some networks; only `advance` changes them.

    torch iterates in every training forward. The vectors would then depend on how many groups a worker runs and on how
    many forwards an update has. Here forwards leave them as they are.

    Attributes:
        vectors: all of them, buffers of the networks.
    """

    def __init__(self, *networks: nn.Module) -> None:
        weights = [m for network in networks for m in network.modules() if isinstance(m, ParametrizationList)]
        self._norms = [(weight, norm) for weight in weights for norm in weight if isinstance(norm, _SpectralNorm)]
        self.vectors: list[Tensor] = [buffer for _, norm in self._norms for buffer in norm.buffers()]
        for _, norm in self._norms:
            norm.eval()

    @torch.no_grad()
    def advance(self) -> None:
        """One iteration from the last vectors with the weights as they are now."""
        for weight, norm in self._norms:
            norm.train()
            weight()
            norm.eval()


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether any layer is a batch normalization."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


class RunningStatistics:
    """Advances the running statistics of some networks by the mean over all groups of an update.

    Each group starts from the statistics before the update; the results are averaged over all groups of all workers.
    The all-reduce starts after the last group's forward and runs during its backward.

    The power iteration of spectral normalization advances once at the start of an update, so all groups use the same
    vectors. The weights are the same on every worker, so the vectors are too.
    """

    def __init__(self, *networks: nn.Module) -> None:
        layers = [module for network in networks for module in network.modules() if isinstance(module, _BatchNorm)]
        buffers = [buffer for layer in layers for buffer in layer.buffers()]
        self._means = [buffer for buffer in buffers if buffer.is_floating_point()]
        self._all = self._means + [buffer for buffer in buffers if not buffer.is_floating_point()]
        self._initial: list[Tensor] = []
        self._totals: list[Tensor] = []
        self._finish: Callable[[], None] = _nothing
        self._power_iteration = PowerIteration(*networks)

    def begin(self) -> None:
        """Marks the start of an update."""
        self._power_iteration.advance()
        self._remember()

    @contextmanager
    def group(self, last: bool, num_groups: int, workers: Distributed | SumsBetweenGraphs) -> Iterator[None]:
        """Encloses all training forwards of one group; `last` says whether it is the worker's last one."""
        self._restore()
        yield
        if self._means:
            with torch.no_grad():
                torch._foreach_add_(self._totals, self._means)
                if last:
                    self._finish = self._start_averaging(num_groups, workers)

    def finish(self) -> None:
        """Sets the statistics to their means over all groups of all workers."""
        self._finish()
        self._finish = _nothing

    @contextmanager
    def held(self) -> Iterator[None]:
        """Encloses training forwards that do not change the statistics and the power iteration."""
        self._remember()
        yield
        self._restore()

    @torch.no_grad()
    def _remember(self) -> None:
        self._initial = [buffer.clone() for buffer in self._all]
        self._totals = [torch.zeros_like(buffer) for buffer in self._means]

    def _start_averaging(self, num_groups: int, workers: Distributed | SumsBetweenGraphs) -> Callable[[], None]:
        totals = workers.all_reduce_async(torch.cat([total.flatten() for total in self._totals]))

        @torch.no_grad()
        def finish() -> None:
            means = torch.split(totals() / num_groups, [buffer.numel() for buffer in self._means])
            shaped = [mean.view_as(buffer) for mean, buffer in zip(means, self._means, strict=True)]
            torch._foreach_copy_(self._means, shaped)

        return finish

    @torch.no_grad()
    def _restore(self) -> None:
        if self._all:
            torch._foreach_copy_(self._all, self._initial)


def _nothing() -> None:
    pass
