"""Which keys of two configurations differ in a way that changes what is trained."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from distgan.config.load import flatten
from distgan.config.schema import Config, Free, sections_of


def free_keys(model: type[BaseModel] = Config, prefix: str = "") -> set[str]:
    """Dotted keys that may differ between the sessions of one run."""
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        for section in sections_of(field):
            keys |= free_keys(section, f"{prefix}{name}.")
        if any(isinstance(mark, Free) for mark in field.metadata):
            keys.add(f"{prefix}{name}")
    return keys


def training_differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Keys that change what is trained, each with its old and new value. Empty: the run may go on."""
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    free = free_keys()
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if key not in free and before.get(key) != after.get(key)
    }
