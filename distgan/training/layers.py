"""What a network is made of, seen in one forward without numbers; a network that cannot do it is refused."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from distgan.config.own_code import is_own, why
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.training.step import DTYPES

_COUNT = 2


def layers_of(network: nn.Module, config: Config, section: str) -> list[tuple[str, str, int]]:
    """(layer, output shape, parameters) of each layer of a network on the device "meta"; `section` says which.

    Raises UserError for one whose output has another shape than such a network's, and for a user's own that fails.
    """
    rows: list[tuple[str, str, int]] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        shape = "x".join(str(size) for size in output.shape[1:]) or "1" if isinstance(output, Tensor) else ""
        rows.append((type_before_parametrizations(module).__name__, shape, sum(p.numel() for p in module.parameters())))

    layers = [layer for layer in single_layers(network) if not isinstance(layer, nn.Identity)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        _check_forward(network, config, section)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def single_layers(network: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network that are one layer each: those without parts, or with parameters of their own.

    So self-attention is one layer, and a normalised convolution is not its normalisation.
    """
    for part in network.children():
        if not list(part.children()) or is_parametrized(part) or list(part.parameters(recurse=False)):
            yield part
        else:
            yield from single_layers(part)


def _check_forward(network: nn.Module, config: Config, section: str) -> None:
    latents: tuple[int, ...] = (_COUNT, config.latent_dim)
    images: tuple[int, ...] = (_COUNT, config.channels, config.image_size, config.image_size)
    given, wanted = (latents, images) if section == "generator" else (images, (_COUNT,))
    name = getattr(config, section).network
    labels = () if config.num_classes is None else (torch.zeros(_COUNT, dtype=torch.int64, device="meta"),)
    try:
        output = network(torch.empty(given, device="meta", dtype=DTYPES[config.training.precision]), *labels)
    except Exception as error:
        if not is_own(name):
            raise
        raise UserError(f"{section}.network={name}: its forward raised {why(error)}") from error
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if found != wanted:
        raise UserError(f"{section}.network={name}: for input {given} its output is {found}, and must be {wanted}")
