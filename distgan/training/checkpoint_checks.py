"""Whether the tensors of a checkpoint are those of the networks in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from distgan.config.load import build_config
from distgan.config.plugins import custom_names, without_custom_observers
from distgan.errors import UserError
from distgan.training.manifest import Manifest, damaged_checkpoint, is_other, of_other_version
from distgan.training.networks import build_networks
from distgan.training.optimizers import moment_specs
from distgan.training.progress import Progress
from distgan.training.state_file import difference, specs_of


def expected_tensors(manifest: Manifest, where: str, known: Mapping[str, str]) -> dict[str, Any] | None:
    """The tree of `TensorSpec` that the run of a manifest saves; None if it has custom components that are not `known`.

    Raises DamagedError for a configuration that no run has, and UserError for that of another version.
    """
    tree = without_custom_observers(manifest.config)
    custom = custom_names(tree)
    if not custom.items() <= known.items():
        return None
    try:
        config = build_config(tree, where if custom else "its configuration", trust_code=True)
        networks = build_networks(config, torch.device("meta"))
    except UserError as error:
        if custom:
            raise
        raise mismatch(manifest, where, str(error)) from None
    generator, discriminator = (
        specs_of(networks.generator.state_dict()),
        specs_of(networks.discriminator.state_dict()),
    )
    progress, optimizer = Progress.from_dict(manifest.progress), config.optimizer
    # An optimizer has moments from its first update on.
    generator_moments = moment_specs(optimizer.generator, networks.generator) if progress.step else {}
    discriminator_moments = (
        moment_specs(optimizer.discriminator, networks.discriminator) if progress.discriminator_updates else {}
    )
    return {
        "generator": generator,
        "discriminator": discriminator,
        "ema": generator,
        "generator_optimizer": {"state": generator_moments, "param_groups": None},
        "discriminator_optimizer": {"state": discriminator_moments, "param_groups": None},
    }


def compare_tensors(manifest: Manifest, where: str, found: Any, expected: dict[str, Any]) -> None:
    """Raises DamagedError, or UserError for another version, if the specs of a state file are not the expected ones."""
    if custom_names(manifest.config):
        expected = {name: _without_unused(part, found.get(name)) for name, part in expected.items()}
    differs = difference(found, expected)
    if differs is not None:
        raise mismatch(manifest, where, f"its tensors are not those of its networks: {differs}")


def mismatch(manifest: Manifest, where: str, reason: str) -> UserError:
    """The error for a checkpoint whose content is not that of its manifest: damage, or another version's."""
    if is_other(manifest.distgan):
        return of_other_version(where, manifest.distgan, reason)
    return damaged_checkpoint(where, reason)


def _without_unused(expected: Mapping[str, Any], found: Any) -> Mapping[str, Any]:
    """The expected state without moments that are not found: custom networks may have parameters without gradients."""
    state = found.get("state") if isinstance(found, Mapping) else None
    if "state" not in expected or not isinstance(state, Mapping) or not state:
        return expected
    return {**expected, "state": {number: spec for number, spec in expected["state"].items() if number in state}}
