"""The configuration of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from distgan.config.components import COMPONENTS, options_model, own_names, split_section
from distgan.config.load import build_config
from distgan.config.schema import AdamConfig, Config, RMSPropConfig
from distgan.errors import UserError
from distgan.search.plan import Plan
from distgan.search.trials import Trial

_OPTIMIZERS: Mapping[str, type[AdamConfig | RMSPropConfig]] = {"adam": AdamConfig, "rmsprop": RMSPropConfig}


def trial_config(plan: Plan, trial: Trial, where: str) -> Config:
    """The search's configuration with the trial's values and its seed; `where` names the record in errors.

    A component or optimiser that the trial has in place of another keeps those options of it that it has itself. No
    module of a user is imported. Raises UserError for what is no configuration, as of a damaged record.
    """
    where = f"{where}: trial {trial.number}"
    tree = _tree(plan.config, {**trial.overrides, "seed": trial.seed})
    if not own_names(tree):
        return build_config(tree, where)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: no configuration: {error.errors()[0]['msg']}") from None


def _tree(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values."""
    tree = dict(config)
    for section, (schema, key, registry) in COMPONENTS.items():
        name = overrides.get(f"{section}.{key}")
        if isinstance(name, str) and name in registry and name != tree[section].get(key):
            declared, options = split_section(section, tree[section])
            tree[section] = declared | _only(options_model(registry.resolve(name), schema.model_fields), options)
    for side in ("generator", "discriminator"):
        name = overrides.get(f"optimizer.{side}.name")
        if isinstance(name, str) and name in _OPTIMIZERS and name != tree["optimizer"][side].get("name"):
            options = _only(_OPTIMIZERS[name], tree["optimizer"][side])
            tree["optimizer"] = {**tree["optimizer"], side: options}
    for dotted, value in overrides.items():
        _put(tree, dotted.split("."), value)
    return tree


def _only(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option in model.model_fields}


def _put(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Sets a value in place, in copies of the sections that it is in."""
    for part in parts[:-1]:
        tree[part] = dict(tree.get(part) or {})
        tree = tree[part]
    tree[parts[-1]] = value
