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

from distgan.config.allowed import either
from distgan.config.own_code import is_own, why
from distgan.config.registry import DISCRIMINATORS, GENERATORS, OBJECTIVES, Registry
from distgan.config.schema import DiscriminatorConfig, GeneratorConfig, ObjectiveConfig
from distgan.config.section import Section
from distgan.errors import UserError

# Section of the tree -> (its schema, the key that names the component, its registry).
COMPONENTS: dict[str, tuple[type[Section], str, Registry]] = {
    "generator": (GeneratorConfig, "network", GENERATORS),
    "discriminator": (DiscriminatorConfig, "network", DISCRIMINATORS),
    "objective": (ObjectiveConfig, "name", OBJECTIVES),
}

# Arguments that come from the tree's top level, not from the section.
CONTEXT = ("image_size", "channels", "latent_dim", "num_classes")


def options_model(target: type[Any], declared: Collection[str] = ()) -> type[BaseModel]:
    """A pydantic model of `target`'s own options: its keyword arguments without the context's.

    Raises UserError for a signature that configuration keys cannot be made of.
    """
    try:
        hints = typing.get_type_hints(target.__init__, include_extras=True)
        fields = {
            name: _field(parameter, hints)
            for name, parameter in inspect.signature(target).parameters.items()
            if name not in CONTEXT and name not in declared
        }
        config = ConfigDict(extra="forbid", allow_inf_nan=False)
        return create_model(f"{target.__name__}Options", __config__=config, **fields)
    except UserError as error:
        raise UserError(f"{target.__module__}:{target.__name__}: {error}") from None
    except Exception as error:
        if target.__module__.startswith("distgan."):
            raise
        raise UserError(f"{target.__module__}:{target.__name__}: its signature cannot be read: {why(error)}") from error


def _field(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """A parameter's type and default, as pydantic's `create_model` takes them."""
    if parameter.kind not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        raise UserError(f"its parameter `{parameter}` is no key; write keyword arguments, each with a type")
    if parameter.name not in hints:
        raise UserError(f"its parameter `{parameter}` has no type; write one, as in `width: int = 64`")
    return hints[parameter.name], ... if parameter.default is inspect.Parameter.empty else parameter.default


def option_of_others(section: str, name: str, option: str) -> str:
    """`; it is an option of …, not of NAME` where other components of the section have it; else nothing."""
    _, _, registry = COMPONENTS[section]
    others = [other for other in registry if option in options_model(registry.resolve(other)).model_fields]
    return f"; it is an option of {either(others)}, not of {name}" if others else ""


def takes_labels(target: type[Any]) -> bool:
    """Whether a network can be conditional: its constructor has the argument `num_classes`."""
    return "num_classes" in inspect.signature(target).parameters


def needs_labels(target: type[Any]) -> bool:
    """Whether a network cannot be unconditional: it takes `num_classes`, and None is no value for it."""
    parameter = inspect.signature(target).parameters.get("num_classes")
    if parameter is None or parameter.default is None:
        return False
    hint = typing.get_type_hints(target.__init__).get("num_classes")
    return type(None) not in typing.get_args(hint)


def own_names(tree: Mapping[str, Any]) -> dict[str, str]:
    """The components of a plain tree of values that are a user's own: key -> `module:Class`."""
    found = {}
    for section, key in (*((section, key) for section, (_, key, _) in COMPONENTS.items()), ("evaluation", "extractor")):
        values = tree.get(section)
        name = values.get(key) if isinstance(values, Mapping) else None
        if isinstance(name, str) and is_own(name):
            found[f"{section}.{key}"] = name
    return found


def context_arguments(target: type[Any], tree: Any) -> dict[str, Any]:
    """Those of the tree's top-level values that `target` takes, by name."""
    parameters = inspect.signature(target).parameters
    return {name: getattr(tree, name) for name in CONTEXT if name in parameters}


def with_former_options(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration, with options that are younger than it as it was trained with.

    Networks called `sngan` were of SAGAN's form before they had the option `form`; it is added where the forms differ.
    """
    former, size = dict(tree), tree.get("image_size")
    for section in ("generator", "discriminator"):
        options = tree.get(section)
        if isinstance(options, Mapping) and options.get("network") == "sngan" and "form" not in options:
            widths = options.get("widths") is not None
            differs = (size == 64 and not widths) if section == "generator" else (size != 32 or widths)
            former[section] = {**options, "form": "sagan"} if differs else options
    return former


def split_section(section: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a component section's values into the declared ones and the component's options."""
    schema, _, _ = COMPONENTS[section]
    declared = {key: value for key, value in values.items() if key in schema.model_fields}
    return declared, {key: value for key, value in values.items() if key not in declared}
