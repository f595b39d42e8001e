"""A configuration with some of its keys set to other values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgan.config.components import COMPONENTS, options_model, split_section
from distgan.config.load import build_config
from distgan.config.schema import Config


def overridden(config: Config, overrides: Mapping[str, Any], where: str) -> Config:
    """The configuration with values by dotted key; one that has been built, so its modules are trusted.

    Where a component becomes another, its own options go, but for those that both have. Raises UserError, naming
    `where`, for values that cannot work.
    """
    tree: dict[str, Any] = config.model_dump(mode="json")
    for section, (schema, key, registry) in COMPONENTS.items():
        name = overrides.get(f"{section}.{key}")
        if isinstance(name, str) and name != tree[section][key]:
            declared, options = split_section(section, tree[section])
            known = options_model(registry.resolve(name), schema.model_fields).model_fields
            tree[section] = {**declared, **{option: value for option, value in options.items() if option in known}}
    for dotted, value in overrides.items():
        *sections, last = dotted.split(".")
        node = tree
        for section in sections:
            node = node[section]
        node[last] = value
    return build_config(tree, where, trust_code=True)
