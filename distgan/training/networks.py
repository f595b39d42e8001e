"""From a configuration to its networks and objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm

from distgan.config.components import context_arguments
from distgan.config.registry import DISCRIMINATORS, GENERATORS, OBJECTIVES
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.training.draws import Purpose, derive_seed
from distgan.training.objectives import Objective
from distgan.training.statistics import has_batch_statistics
from distgan.training.step import DTYPES


@dataclass(frozen=True)
class Networks:
    """A generator, mapping latents (N, latent_dim) to images, and a discriminator, mapping images to logits (N,)."""

    generator: nn.Module
    discriminator: nn.Module


def build_networks(config: Config, device: torch.device) -> Networks:
    """Both networks with initial weights drawn from the configuration's seed; on "meta" without weights.

    Raises UserError for a combination of options that a network cannot be made of.
    """
    dtype = DTYPES[config.training.precision]
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    built = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, Purpose.INITIAL_WEIGHTS))
        for section, registry in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
            part = getattr(config, section)
            target = registry.resolve(part.network)
            try:
                with torch.device("meta" if device.type == "meta" else "cpu"):
                    network = target(**context_arguments(target, config), **part.options)
            except ValueError as error:
                raise UserError(f"{section}: {error}") from None
            built.append(network.to(device=device, dtype=dtype, memory_format=memory_format))
    return Networks(*built)


def build_objective(config: Config) -> Objective:
    """The objective that the configuration names."""
    objective: Objective = OBJECTIVES.resolve(config.objective.name)(**config.objective.options)
    return objective


def check_combination(config: Config, networks: Networks) -> None:
    """Raises UserError for networks and objectives that cannot work together."""
    objective, discriminator = build_objective(config), networks.discriminator
    network, name = f"discriminator.network={config.discriminator.network}", f"objective.name={config.objective.name}"
    if objective.penalised and has_batch_statistics(discriminator):
        raise UserError(
            f"{network} normalises over the batch, which {name} forbids: its gradient penalty is an image's own; "
            f"use discriminator.network=wgan_gp{_or_no_r1(config)}"
        )
    if objective.penalised and config.objective.updates == "simultaneous":
        raise UserError(
            f"objective.updates=simultaneous does not go with {name}: its gradient penalty needs a forward of its own; "
            f"use objective.updates=sequential{_or_no_r1(config)}"
        )
    if objective.clip_value is not None and _has_spectral_norm(discriminator):
        raise UserError(
            f"{network} normalises its weights by their spectral norm, which undoes the clipping of {name}; "
            f"use another objective, such as objective.name=hinge, or a discriminator without spectral norm"
        )
    if isinstance(list(discriminator.modules())[-1], nn.Sigmoid):
        raise UserError(f"{network} ends in a sigmoid, but {name} takes unbounded logits; leave the sigmoid out")


def _or_no_r1(config: Config) -> str:
    return " or objective.r1_weight=0" if config.objective.options.get("r1_weight") else ""


def _has_spectral_norm(network: nn.Module) -> bool:
    return any(isinstance(module, _SpectralNorm) for module in network.modules())
