"""What a network is made of: counts, and a table of its layers from one forward without numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distgan.training.networks import single_layers


def meta(network: type[nn.Module], **options: object) -> nn.Module:
    """A network without numbers."""
    with torch.device("meta"):
        return network(**options)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def running_statistics(network: nn.Module) -> int:
    return sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)


def layer_table(network: nn.Module, *inputs: Tensor) -> list[tuple[tuple[int, ...], int]]:
    """(output shape, numbers) of each layer that has any, in the order of the forward: weights and statistics.

    Self-attention and conditional normalization are one layer each.
    """
    rows: list[tuple[tuple[int, ...], int]] = []

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        numbers = parameters(layer) + running_statistics(layer)
        if numbers:
            rows.append((tuple(output.shape[1:]), numbers))

    hooks = [layer.register_forward_hook(note) for layer in single_layers(network)]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    assert sum(numbers for _, numbers in rows) == parameters(network) + running_statistics(network)
    return rows
