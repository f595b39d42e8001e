"""Checks the options of a named component against the signature of what it names.

The constructor's keyword arguments are the schema: names, `Annotated` ranges and defaults. So a component is
described in one place, its own file.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from distgan.config.registry import DISCRIMINATORS, GENERATORS, OBJECTIVES, Registry
from distgan.config.schema import DiscriminatorConfig, GeneratorConfig, ObjectiveConfig, Section

# Section of the tree -> (its schema, the key that names the component, its registry).
COMPONENTS: dict[str, tuple[type[Section], str, Registry]] = {
    "generator": (GeneratorConfig, "network", GENERATORS),
    "discriminator": (DiscriminatorConfig, "network", DISCRIMINATORS),
    "objective": (ObjectiveConfig, "name", OBJECTIVES),
}

# Arguments that come from the tree's top level, not from the section.
CONTEXT = ("image_size", "channels", "latent_dim")


def options_model(target: Any, declared: Collection[str] = ()) -> type[BaseModel]:
    """A pydantic model of `target`'s own options: its keyword arguments without the context's."""
    hints = typing.get_type_hints(target.__init__, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name in CONTEXT or name in declared:
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model(f"{target.__name__}Options", __config__=config, **fields)


def context_arguments(target: Any, tree: Any) -> dict[str, Any]:
    """Those of the tree's top-level values that `target` takes, by name."""
    parameters = inspect.signature(target).parameters
    return {name: getattr(tree, name) for name in CONTEXT if name in parameters}


def split_section(section: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a component section's values into the declared ones and the component's options."""
    schema, _, _ = COMPONENTS[section]
    declared = {key: value for key, value in values.items() if key in schema.model_fields}
    return declared, {key: value for key, value in values.items() if key not in declared}
