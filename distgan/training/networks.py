"""From a configuration to its networks and objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from distgan.config.components import context_arguments, needs_labels, takes_labels
from distgan.config.own_code import is_own, why
from distgan.config.registry import DISCRIMINATORS, GENERATORS, OBJECTIVES, Registry
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.training.draws import Purpose, derive_seed
from distgan.training.objectives import Objective
from distgan.training.statistics import has_batch_statistics
from distgan.training.step import DTYPES

_OBJECTIVE_METHODS = [name for name, value in vars(Objective).items() if name[:1] != "_" and callable(value)]


@dataclass(frozen=True)
class Networks:
    """A generator, mapping latents (N, latent_dim) to images, and a discriminator, mapping images to logits (N,).

    Those of a conditional configuration take labels, int64 (N,) from 0 to num_classes - 1, as a second argument.
    """

    generator: nn.Module
    discriminator: nn.Module


def build_networks(config: Config, device: torch.device) -> Networks:
    """Both networks with initial weights drawn from the configuration's seed; on "meta" without weights.

    Raises UserError for a combination of options that a network cannot be made of, and for a network that does not
    go with `num_classes`.
    """
    dtype = DTYPES[config.training.precision]
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    built = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, Purpose.INITIAL_WEIGHTS))
        for section, registry in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
            with torch.device("meta" if device.type == "meta" else "cpu"):
                network = _build_network(config, section, registry)
            built.append(network.to(device=device, dtype=dtype, memory_format=memory_format))  # type: ignore[call-overload]
    return Networks(*built)


def _build_network(config: Config, section: str, registry: Registry) -> nn.Module:
    part = getattr(config, section)
    where = f"{section}.network={part.network}"
    target = registry.resolve(part.network)
    if not issubclass(target, nn.Module):
        raise UserError(f"{where}: this class is no torch.nn.Module; derive it from that")
    _check_labels(config.num_classes, target, where)
    try:
        network: nn.Module = target(**context_arguments(target, config), **part.options)
    except ValueError as error:
        raise UserError(f"{section}: {error}") from None
    except Exception as error:
        if not is_own(part.network):
            raise
        raise UserError(f"{where}: its constructor raised {why(error)}") from error
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{where}: the network has no parameters that can be trained")
    return network


def _check_labels(num_classes: int | None, target: type[nn.Module], where: str) -> None:
    """Raises UserError for a network that does not take what the configuration would give it."""
    if num_classes is not None and not takes_labels(target):
        raise UserError(
            f"{where} takes no labels, and num_classes={num_classes} asks for a conditional network; choose one, or "
            f"set num_classes=null"
        )
    if num_classes is None and needs_labels(target):
        raise UserError(
            f"{where} is a conditional network; set num_classes, the number of classes in the data "
            f"(`distgan data info` prints it)"
        )


def build_objective(config: Config) -> Objective:
    """The objective that the configuration names. Raises UserError for a user's own that is none."""
    name = config.objective.name
    target = OBJECTIVES.resolve(name)
    missing = [method for method in _OBJECTIVE_METHODS if not callable(getattr(target, method, None))]
    if missing:
        raise UserError(f"objective.name={name}: the class has no method {' and no method '.join(missing)}")
    try:
        objective: Objective = target(**config.objective.options)
    except Exception as error:
        if not is_own(name):
            raise
        raise UserError(f"objective.name={name}: its constructor raised {why(error)}") from error
    return objective


def check_combination(config: Config, networks: Networks) -> None:
    """Raises UserError for networks and objectives that cannot work together."""
    penalised = getattr(OBJECTIVES.resolve(config.objective.name), "penalised", False)
    if penalised and has_batch_statistics(networks.discriminator):
        raise UserError(
            f"discriminator.network={config.discriminator.network} normalises over the batch, which "
            f"objective.name={config.objective.name} forbids: its gradient penalty is an image's own; "
            f"use discriminator.network=wgan_gp"
        )
    if penalised and config.objective.updates == "simultaneous":
        raise UserError(
            f"objective.updates=simultaneous does not go with objective.name={config.objective.name}: "
            f"its critic is updated several times a step; use objective.updates=sequential"
        )
