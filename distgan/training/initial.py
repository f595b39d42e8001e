"""A new run from the weights of another: both networks and the average, not optimisers and counters.

A new run from the whole state of another is `TrainingState.continue_from`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from distgan.errors import UserError
from distgan.training.checkpoints import Checkpoint, Manifest, fitting
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.networks import Networks

Beginning = Literal["--init-from", "--continue-from"]


def load_initial(checkpoint: Checkpoint, networks: Networks, ema: ExponentialMovingAverage) -> None:
    """Takes over a checkpoint's weights in place. Raises UserError where they are those of other networks."""
    check_initial(checkpoint, networks)
    with fitting(checkpoint.url):
        networks.generator.load_state_dict(checkpoint.tensors["generator"])
        networks.discriminator.load_state_dict(checkpoint.tensors["discriminator"])
        ema.network.load_state_dict(checkpoint.tensors["ema"])


def check_initial(checkpoint: Checkpoint, networks: Networks) -> None:
    """Raises UserError, naming the first tensor, where a checkpoint's are not of these networks' names and shapes."""
    parts = {"generator": networks.generator, "discriminator": networks.discriminator, "ema": networks.generator}
    tensors = checkpoint.tensors if isinstance(checkpoint.tensors, Mapping) else {}
    for part, network in parts.items():
        difference = _difference(tensors.get(part), network)
        if difference is not None:
            raise UserError(
                f"--init-from {checkpoint.url}: its {part} is another network than the configuration's: {difference}; "
                f"use the configuration that it was trained with, or begin without --init-from"
            )


def check_same_beginning(manifest: Manifest, option: Beginning, asked: str, where: str) -> None:
    """Raises UserError where a run that is gone on with did not begin with what is at the URL `asked`."""
    began = manifest.init_from if option == "--init-from" else manifest.continued_from
    if began is None or not f"{began}/".startswith(f"{asked}/"):
        raise UserError(
            f"{option} {asked}: {where} is a run already, which began from "
            f"{manifest.init_from or manifest.continued_from or 'random weights'}; leave {option} out to go on with "
            f"it, or start a new run with another --name"
        )


def _difference(tensors: object, network: nn.Module) -> str | None:
    """The first difference between a checkpoint's part and a network's, in words."""
    if not isinstance(tensors, Mapping):
        return "it is missing"
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items() if isinstance(value, Tensor)}
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            return f"{name} is {found.get(name, 'missing')} there and {wanted.get(name, 'missing')} here"
    return None
