"""A configuration with some of its keys set to other values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from distgan.config.components import COMPONENTS, options_model, split_section
from distgan.config.load import build_config
from distgan.config.schema import AdamConfig, Config, RMSPropConfig

_OPTIMIZERS: Mapping[str, type[AdamConfig | RMSPropConfig]] = {"adam": AdamConfig, "rmsprop": RMSPropConfig}


def overridden(config: Config, overrides: Mapping[str, Any], where: str) -> Config:
    """A configuration that has been built, with values by dotted key; see `overridden_tree`.

    Raises UserError, naming `where`, for values that cannot work.
    """
    return build_config(overridden_tree(config.model_dump(mode="json"), overrides), where, trust_code=True)


def overridden_tree(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration's plain values with others by dotted key.

    Where a component or an optimiser becomes another one, of its own options those stay that the other has too.
    """
    changed = dict(tree)
    for section, (schema, key, registry) in COMPONENTS.items():
        name = overrides.get(f"{section}.{key}")
        if isinstance(name, str) and name in registry and name != _table(changed, section).get(key):
            declared, options = split_section(section, _table(changed, section))
            changed[section] = declared | _only(options_model(registry.resolve(name), schema.model_fields), options)
    for side in ("generator", "discriminator"):
        name = overrides.get(f"optimizer.{side}.name")
        if (
            isinstance(name, str)
            and name in _OPTIMIZERS
            and name != (_table(optimizers := _table(changed, "optimizer"), side)).get("name")
        ):
            changed["optimizer"] = {**optimizers, side: _only(_OPTIMIZERS[name], _table(optimizers, side))}
    for dotted, value in overrides.items():
        _put(changed, dotted.split("."), value)
    return changed


def _only(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option in model.model_fields}


def _table(tree: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A copy of a section; an empty one where there is none, or a value in its place, as in a damaged record."""
    return dict(found) if isinstance(found := tree.get(part), Mapping) else {}


def _put(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Sets a value in place, in copies of the sections that it is in."""
    for part in parts[:-1]:
        tree[part] = _table(tree, part)
        tree = tree[part]
    tree[parts[-1]] = value
