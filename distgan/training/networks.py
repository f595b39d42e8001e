"""Builds the networks and the objective of a configuration, and checks that they work together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from distgan.config.config_errors import join_or
from distgan.config.plugins import (
    DISCRIMINATORS,
    GENERATORS,
    OBJECTIVES,
    Registry,
    context_arguments,
    error_text,
    is_custom,
    needs_labels,
    takes_labels,
)
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.losses.rng import derive_seed
from distgan.training.adaptive_augmentation import sign_accuracy
from distgan.training.batch_statistics import has_batch_statistics

# The dtype of weights, images and losses, by `training.precision`.
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}

# What networks are called with after latents or images: int64 (N,) if they are conditional, else nothing.
Labels = tuple[Tensor] | tuple[()]

_COUNT = 2


@dataclass(frozen=True)
class Networks:
    """A generator, mapping latents (N, latent_dim) to images, and a discriminator, mapping images to logits (N, ...).

    Those of a conditional configuration take labels, int64 (N,) from 0 to num_classes - 1, as a second argument.
    """

    generator: nn.Module
    discriminator: nn.Module

    @property
    def parameter_counts(self) -> dict[str, int]:
        """Parameters of each, by the section of the configuration that it is built from."""
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


def build_networks(config: Config, device: torch.device) -> Networks:
    """Both networks with initial weights drawn from the configuration's seed; on "meta" without weights.

    Raises UserError for a combination of options that a network cannot be made of, and for a network that does not
    go with `num_classes`.
    """
    dtype = DTYPES[config.training.precision]
    memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format
    built = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "initial weights"))
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
        raise UserError(f"{where}: derive this class from torch.nn.Module")
    _check_labels(config.num_classes, target, where, registry)
    try:
        network: nn.Module = target(**context_arguments(target, config), **part.options)
    except ValueError as error:
        raise UserError(f"{section}: {error}") from None
    except Exception as error:
        if not is_custom(part.network):
            raise
        raise UserError(f"{where}: its constructor raised {error_text(error)}") from error
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{where}: the network has no parameters that can be trained")
    return network


def _check_labels(num_classes: int | None, target: type[nn.Module], where: str, registry: Registry) -> None:
    """Raises UserError for a network that does not take what the configuration would give it."""
    if num_classes is not None and not takes_labels(target):
        conditional = join_or([name for name in registry if takes_labels(registry.resolve(name))])
        raise UserError(
            f"{where} takes no labels, and num_classes={num_classes} asks for a conditional network ({conditional}); "
            f"choose one, or set num_classes=null"
        )
    if num_classes is None and needs_labels(target):
        raise UserError(
            f"{where} is a conditional network; set num_classes, the number of classes in the data "
            f"(`distgan data info` prints it)"
        )


def build_objective(config: Config) -> Objective:
    """The objective that the configuration names. Raises UserError for a custom class that is no objective."""
    name = config.objective.name
    target = OBJECTIVES.resolve(name)
    if not issubclass(target, Objective):
        raise UserError(f"objective.name={name}: derive this class from distgan.losses.Objective")
    try:
        objective: Objective = target(**config.objective.options)
    except Exception as error:
        if not is_custom(name):
            raise
        raise UserError(f"objective.name={name}: its constructor raised {error_text(error)}") from error
    return objective


def check_combination(config: Config, networks: Networks, objective: Objective) -> None:
    """Raises UserError for networks on the device "meta" and an objective that cannot work together."""
    discriminator = networks.discriminator
    network, name = f"discriminator.network={config.discriminator.network}", f"objective.name={config.objective.name}"
    if objective.penalized and has_batch_statistics(discriminator):
        raise UserError(
            f"{network} normalizes over the batch, which {name} forbids: its gradient penalty is an image's own; "
            f"use discriminator.network={'wgan_gp' if config.num_classes is None else 'cgan'}{_or_no_penalty(config)}"
        )
    if objective.penalized and config.objective.updates == "simultaneous":
        raise UserError(
            f"objective.updates=simultaneous does not go with {name}: its gradient penalty needs a forward of its own; "
            f"use objective.updates=sequential{_or_no_penalty(config)}"
        )
    if objective.clip_value is not None and _has_spectral_norm(discriminator):
        raise UserError(
            f"{network} normalizes its weights by their spectral norm, which undoes the clipping of {name}; "
            f"use objective.name=hinge, or a discriminator without spectral norm{_without_spectral_norm(config)}"
        )
    target = config.training.augment_target
    if target is not None and config.data.held_out is None and sign_accuracy(objective) is None:
        raise UserError(
            f"training.augment_target={target:g}: the sign of a logit has no meaning with {name}, so overfitting can "
            f"only be measured by held-out images; set data.held_out=URL, a data set that is not trained on"
        )
    if isinstance(list(discriminator.modules())[-1], nn.Sigmoid):
        raise UserError(f"{network} ends in a sigmoid, but {name} takes unbounded logits; leave the sigmoid out")
    if is_custom(config.objective.name):
        _check_losses(config, objective, _check_forward(discriminator, config, "discriminator"))


def _check_losses(config: Config, objective: Objective, shape: tuple[int, ...]) -> None:
    """Raises UserError for a custom objective whose losses of random logits are no finite scalars."""
    dtype = DTYPES[config.training.precision]
    context = Context(0, 0.0, config.seed, 0, torch.device("cpu"), dtype)
    real, fake = context.normal("checked reals", *shape), context.normal("checked fakes", *shape)
    given = real if objective.needs_real_logits else real.new_empty(0)
    losses = {"discriminator_loss": (real, fake, context), "generator_loss": (fake, given, context)}
    for method, arguments in losses.items():
        where = f"objective.name={config.objective.name}: its {method}"
        try:
            loss = getattr(objective, method)(*arguments)
        except Exception as error:
            raise UserError(f"{where} raised {error_text(error)}{_real_logits_hint(objective, method)}") from error
        if not isinstance(loss, Tensor) or loss.shape != ():
            found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(f"{where} returned {found}; return a mean over all logits, a tensor without dimensions")
        if not loss.isfinite():
            raise UserError(f"{where} is {loss.item()} for random logits{_real_logits_hint(objective, method)}")


def _real_logits_hint(objective: Objective, method: str) -> str:
    """The remedy where a generator's loss uses logits of real images without `needs_real_logits`."""
    if objective.needs_real_logits or method != "generator_loss":
        return ""
    return "; if it uses logits of real images, set needs_real_logits = True in the class"


def _or_no_penalty(config: Config) -> str:
    """The keys that switch the penalty off, where an objective has any."""
    options = config.objective.options
    keys = ["gamma"] if "gamma" in options else [key for key in ("r1_weight", "r2_weight") if options.get(key)]
    return f" or {' '.join(f'objective.{key}=0' for key in keys)}" if keys else ""


def _without_spectral_norm(config: Config) -> str:
    return ": discriminator.spectral_norm=false" if "spectral_norm" in config.discriminator.options else ""


def _has_spectral_norm(network: nn.Module) -> bool:
    return any(isinstance(module, _SpectralNorm) for module in network.modules())


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

    So self-attention is one layer, and a normalized convolution is not its normalization.
    """
    for part in network.children():
        if not list(part.children()) or is_parametrized(part) or list(part.parameters(recurse=False)):
            yield part
        else:
            yield from single_layers(part)


def _check_forward(network: nn.Module, config: Config, section: str) -> tuple[int, ...]:
    """The shape of the output for two inputs, of a network on the device "meta".

    Raises UserError for a generator whose output is no images, and for a discriminator whose output is not (2, ...).
    """
    latents: tuple[int, ...] = (_COUNT, config.latent_dim)
    images: tuple[int, ...] = (_COUNT, config.channels, config.image_size, config.image_size)
    given = latents if section == "generator" else images
    name = getattr(config, section).network
    labels = () if config.num_classes is None else (torch.zeros(_COUNT, dtype=torch.int64, device="meta"),)
    try:
        output = network(torch.empty(given, device="meta", dtype=DTYPES[config.training.precision]), *labels)
    except Exception as error:
        if not is_custom(name):
            raise
        raise UserError(f"{section}.network={name}: its forward raised {error_text(error)}") from error
    found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if isinstance(found, str) or (found != images if section == "generator" else found[:1] != (_COUNT,)):
        wanted = images if section == "generator" else f"({_COUNT},) or ({_COUNT}, ...)"
        raise UserError(f"{section}.network={name}: for input {given} its output is {found}, and must be {wanted}")
    return found
