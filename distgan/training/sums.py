"""Sums over workers where an update is a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from distgan.distributed import Distributed


class SumsBetweenGraphs:
    """Sums over all workers that no graph has: an update asks for them, and they run before its last graph."""

    def __init__(self, distributed: Distributed) -> None:
        self._distributed = distributed
        self._asked: list[Tensor] = []

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], Tensor]:
        """As that of `Distributed`; the sum is there once the function that `take` returned has run."""
        self._asked.append(tensor)
        return lambda: tensor

    def take(self) -> Callable[[], None]:
        """Runs the sums that were asked for since the last call, in place, each time that it is called."""
        asked, self._asked = self._asked, []

        def run() -> None:
            for tensor in asked:
                self._distributed.all_reduce(tensor)

        return run
