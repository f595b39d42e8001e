"""Graphs on the CPU: a record of operations that runs them again on the same memory, without the Python around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They read a number from the device, which a graph cannot do.
SYNCHRONIZING = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal")


class TapeGraphs:
    """As `training.prepared.CudaGraphs`: what a replay does depends on tensors and torch's global generator only."""

    def __init__(self) -> None:
        self.captured = 0

    def warm_up(self, function: Callable[[], object]) -> None:
        function()

    def capture(self, function: Callable[[], object]) -> Callable[[], object]:
        tape = _Tape()
        with tape:
            function()
        self.captured += 1
        return tape.replay


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(func).startswith(SYNCHRONIZING), f"{func} waits for the device"
        output = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, output))
        return output

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, output in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(output), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
