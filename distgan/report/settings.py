"""The configuration of runs as tables: what differs from the preset, and what differs between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distgan.bounds import parse_yaml
from distgan.config.config_errors import value_text
from distgan.config.load import build_config, flatten, load_config, preset_names, preset_text
from distgan.config.plugins import COMPONENTS, is_custom
from distgan.errors import UserError
from distgan.report.run_data import RunData

_MISSING = object()

# They say where a run was, not what it was.
_ALWAYS_OTHER = ("description", "source", "preset", "data.url")


@dataclass(frozen=True)
class Setting:
    """A key of a run's configuration.

    Attributes:
        value, expected: as they are written; `expected` is the preset's value, or the default.
        differs: whether the two differ.
    """

    key: str
    value: str
    expected: str
    differs: bool


@dataclass(frozen=True)
class Settings:
    """The configuration of a run, compared to the preset that it began with, or to the defaults."""

    preset: str | None
    rows: list[Setting]

    @property
    def different(self) -> list[Setting]:
        return [row for row in self.rows if row.differs]


def settings_of(run: RunData) -> Settings:
    """Every key of a run's configuration with what its preset has; imports the networks of distgan, never others."""
    preset = _preset_of(run.config)
    expected = flatten((load_config(preset) if preset else _defaults(run.config)).model_dump(mode="json"))
    rows = []
    for key, value in run.config.items():
        other = expected.get(key, _MISSING)
        differs = other is not _MISSING and key not in _ALWAYS_OTHER and value != other
        if other is _MISSING and preset:
            differs = True
        rows.append(Setting(key, _shown(value), "" if other is _MISSING else _shown(other), differs))
    return Settings(preset, rows)


def differences(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """The keys of which not all runs have the same value, with the values by run; empty for one without the key."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: [run.config.get(key, _MISSING) for run in runs] for key in keys}
    return [
        (key, ["" if value is _MISSING else _shown(value) for value in found])
        for key, found in values.items()
        if any(value != found[0] for value in found)
    ]


def _preset_of(config: Mapping[str, Any]) -> str | None:
    """The preset that a run's configuration began with; runs of earlier versions recorded its description alone."""
    names = preset_names()
    if config.get("preset") in names:
        return str(config["preset"])
    for name in names:
        if config.get("description") == parse_yaml(preset_text(name))["description"]:
            return name
    return None


def _defaults(config: Mapping[str, Any]) -> Any:
    """The default configuration with a run's networks and objective, where they are distgan's own."""
    tree: dict[str, Any] = {}
    for section, (_, key, registry) in COMPONENTS.items():
        name = config.get(f"{section}.{key}")
        if isinstance(name, str) and not is_custom(name) and name in registry:
            tree[section] = {key: name}
    try:
        return build_config(tree, "defaults")
    except UserError:  # networks that do not belong together
        return build_config({}, "defaults")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else value_text(value)
