"""Which keys a resumed run may change: the differences of two configurations, by their marks."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from distgan.config.load import flatten
from distgan.config.plugins import COMPONENTS, options_model
from distgan.config.schema import Config, sections_of
from distgan.config.section import Mutable, Runtime

Mark = TypeVar("Mark", Runtime, Mutable)


def runtime_keys() -> set[str]:
    """Dotted keys that may differ between the sessions of one run."""
    return set(_marked(Runtime, Config))


def mutable_keys() -> dict[str, Mutable]:
    """Dotted keys that a run may change when it continues, each with its mark, which may forbid some changes."""
    found = _marked(Mutable, Config)
    for section, (schema, _, registry) in COMPONENTS.items():
        for name in registry:
            found |= _marked(Mutable, options_model(registry.resolve(name), schema.model_fields), f"{section}.")
    return found


def training_differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Keys that change what is trained, each with its old and new value. Empty: the run may resume."""
    before, after = (flatten(config.model_dump(mode="json"), whole_schedules=True) for config in (old, new))
    runtime = runtime_keys()
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if key not in runtime and before.get(key) != after.get(key)
    }


def lasting_differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The keys of `training_differences` that no continued run may change."""
    differences = training_differences(old, new)
    mutable = mutable_keys() if differences else {}
    return {
        key: values for key, values in differences.items() if key not in mutable or not mutable[key].allows(*values)
    }


def _marked(mark: type[Mark], model: type[BaseModel], prefix: str = "") -> dict[str, Mark]:
    """The fields of a model that have a mark, by dotted key."""
    found: dict[str, Mark] = {}
    for name, field in model.model_fields.items():
        for section in sections_of(field):
            found |= _marked(mark, section, f"{prefix}{name}.")
        found |= {f"{prefix}{name}": each for each in field.metadata if isinstance(each, mark)}
    return found
