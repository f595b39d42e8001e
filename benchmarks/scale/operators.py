"""Operators and floating-point operations, counted while torch dispatches them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that are dispatched inside, views too, and the floating-point operations of products.

    torch's `FlopCounterMode` has the same formulas, but follows modules, which an inner gradient does not allow.

    Attributes:
        product_bytes: of the tensors that products (convolutions and matrix products) read and write.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self.flops = 0
        self.product_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:  # in inference mode compound operators come whole
                parts = func.decompose(*args, **given)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **given)
        self.count += 1
        if formula is not None:
            self.flops += formula(*args, **given, out_val=result)
            tensors = [each for each in tree_leaves((args, given, result)) if isinstance(each, Tensor)]
            self.product_bytes += sum(each.numel() * each.element_size() for each in tensors)
        return result


def counted(work: Callable[[], object]) -> tuple[int, int]:
    """(floating-point operations, operators) of some work: a product and its sum are two, as everywhere."""
    operators = Operators()
    with operators:
        work()
    return operators.flops, operators.count
