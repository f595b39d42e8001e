"""From a preset or file, with overrides, to a checked `Config`, or one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distgan.bounds import NOT_YAML, parse_yaml, read_text, yaml_reason
from distgan.config.config_errors import MAX_EXPLAINED, error_lines
from distgan.config.optimizer import AdamConfig, RMSPropConfig
from distgan.config.plugins import (
    COMPONENTS,
    custom_names,
    name_problems,
    option_of_others,
    options_model,
    split_section,
)
from distgan.config.schedule import is_schedule
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.text import did_you_mean, without_credentials

PRESETS = resources.files("distgan.config") / "presets"

# Section of a preset or file with the space that `distgan tune` searches by default; it is no part of a `Config`.
SEARCH = "search"

# `KEY=VALUE` texts, whose values are YAML, or values by dotted key.
Overrides = Sequence[str] | Mapping[str, Any]


def preset_names() -> list[str]:
    """Names of the presets inside the package, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in PRESETS.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """A preset's YAML with its comments. Raises UserError for an unknown name."""
    if name not in preset_names():
        raise UserError(f"unknown preset {name!r:.100}{did_you_mean(name, preset_names())}")
    return (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")


def load_config(preset_or_file: str, overrides: Overrides = ()) -> Config:
    """The configuration of a preset (by name) or of a YAML file (by path), with overrides.

    Raises UserError, naming key, value, what is allowed and the nearest key.
    """
    text, where = _read(preset_or_file)
    preset = preset_or_file if where == _preset_source(preset_or_file) else ""
    return parse_config(text, where, overrides, trust_code=True, preset=preset)


def load_search(preset_or_file: str) -> tuple[Any, str]:
    """The `search` section of a preset or of a YAML file on this machine, and its name in errors.

    None where there is no such section. Raises UserError for a source that cannot be read.
    """
    text, where = _read(preset_or_file)
    return _parse_yaml(text, where).get(SEARCH), where


def parse_config(
    text: str, where: str, overrides: Overrides = (), *, trust_code: bool = False, preset: str = ""
) -> Config:
    """The configuration in the text of a YAML file, with overrides; otherwise as `build_config`.

    Where an override chooses another component or optimizer, options of the file stay that it has too. `preset` is the
    name of the one that the text is of.
    """
    tree = _parse_yaml(text, where)
    if preset:
        tree["preset"] = preset
    tree.pop(SEARCH, None)
    values = override_values(overrides)
    tree = _with_common_options(tree, values)
    for key, value in values.items():
        _apply_override(tree, key, value)
    return build_config(tree, where, trust_code=trust_code, to_trust="copy it here, and name that file")


def override_values(overrides: Overrides) -> dict[str, Any]:
    """Values by dotted key, in the order in which they apply. Raises UserError for what is no `KEY=VALUE`."""
    if isinstance(overrides, Mapping):
        for key in overrides:
            _check_dotted(key, key)
        return dict(overrides)
    values: dict[str, Any] = {}
    for override in overrides:
        key, value = _parse_override(override)
        values.pop(key, None)  # the last one applies last
        values[key] = value
    return values


def _read(preset_or_file: str) -> tuple[str, str]:
    """The text of a preset or file, and its name in errors."""
    path = Path(preset_or_file)
    try:
        if path.suffix in {".yaml", ".yml"} or path.is_file():
            return read_text(path), str(path)
        return preset_text(preset_or_file), _preset_source(preset_or_file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the configuration {path!s:.100}: {reason}") from None


def _preset_source(name: str) -> str:
    return f"preset {name}"


def build_config(
    tree: Mapping[str, Any], where: str, *, trust_code: bool = False, to_trust: str = "add --trust-code"
) -> Config:
    """The configuration of a plain tree of values, checked.

    Args:
        where: origin of the tree, for errors.
        trust_code: custom components (`module:Class`) may be imported, which runs their code. Without it a tree that
            names any raises UserError.
        to_trust: says in that error how the user allows it.
    """
    values = dict(tree)
    if not trust_code and (custom := custom_names(values)):
        listed = ", ".join(f"{key}={name}" for key, name in custom.items())
        raise UserError(
            f"{where}: its configuration runs code of modules outside distgan ({listed:.300}); if you trust who made "
            f"it, and these are the modules that you expect, {to_trust}"
        )
    problems: list[str] = []
    for section, (schema, key, registry) in COMPONENTS.items():
        given = values.get(section, {})
        if not isinstance(given, Mapping):
            continue  # reported by the tree's own validation
        declared, options = split_section(section, given)
        name = declared.get(key, schema.model_fields[key].default)
        if not isinstance(name, str):
            continue
        try:
            model = options_model(registry.resolve(name), schema.model_fields)
            checked = dict(model.model_validate(options))
        except ValidationError as error:
            problems += error_lines(
                error, model, section, schema.model_fields, partial(option_of_others, section, name)
            )
            checked = {}
        except UserError as error:
            problems.append(f"{section}.{key}: {error}")
            checked = {}
        values[section] = {**declared, **checked}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems += error_lines(error, Config)
    else:
        problems += name_problems(config.model_dump())
    if problems:
        more = [f"and {len(problems) - MAX_EXPLAINED} more"] if len(problems) > MAX_EXPLAINED else []
        shown = [*problems[:MAX_EXPLAINED], *more]
        raise UserError(f"{where}: {'; '.join(shown)}")
    for key, value in flatten(config.model_dump()).items():
        if isinstance(value, str) and without_credentials(value) != value:
            raise UserError(f"{where}: {key}: no passwords in a URL; use the environment or a profile file")
    return config


def dump_config(config: Config) -> str:
    """The whole configuration as YAML, which `load_config` reads."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(tree: Mapping[str, Any], prefix: str = "", *, whole_schedules: bool = False) -> dict[str, Any]:
    """Dotted keys of a nested tree: `{"a": {"b": 1}}` becomes `{"a.b": 1}`; a schedule is a value if asked for."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and not (whole_schedules and is_schedule(value)):
            flat |= flatten(value, f"{prefix}{key}.", whole_schedules=whole_schedules)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _parse_yaml(text: str, where: str) -> dict[str, Any]:
    try:
        tree = parse_yaml(text)
    except NOT_YAML as error:
        raise UserError(f"{where}: not valid YAML{yaml_reason(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise UserError(f"{where}: a configuration is a mapping of keys to values")
    return tree


def _parse_override(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    _check_dotted(key.strip() if equals else "", override)
    try:
        return key.strip(), parse_yaml(text) if text.strip() else text
    except NOT_YAML:
        raise UserError(f"override {override!r:.80}: the value is not valid YAML; quote it") from None


def _check_dotted(key: str, override: str) -> None:
    if not all(key.split(".")):
        raise UserError(
            f"override {override!r:.80}: write KEY=VALUE with a dotted key, as in optimizer.generator.lr=1e-4"
        )


def _apply_override(tree: dict[str, Any], key: str, value: Any) -> None:
    node, (*sections, last) = tree, key.split(".")
    for part in sections:
        child = node.get(part, {})
        if not isinstance(child, dict):
            raise UserError(f"override {key!r:.80}: {part!r:.40} is a value, not a section")
        node[part] = dict(child)  # a YAML alias may share the section with another one
        node = node[part]
    node[last] = value


_OPTIMIZERS: Mapping[str, type[AdamConfig | RMSPropConfig]] = {"adam": AdamConfig, "rmsprop": RMSPropConfig}


def overridden(config: Config, overrides: Mapping[str, Any], where: str) -> Config:
    """A copy of a configuration with other values by dotted key; see `overridden_tree`.

    Raises UserError, naming `where`, for values that cannot work.
    """
    return build_config(overridden_tree(config.model_dump(mode="json"), overrides), where, trust_code=True)


def overridden_tree(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a whole configuration with other values by dotted key.

    Where another component or optimizer is chosen, options stay that it has too.
    """
    changed = _with_common_options(tree, overrides)
    for dotted, value in overrides.items():
        _put(changed, dotted.split("."), value)
    return changed


def _with_common_options(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The tree without the options that a component or optimizer does not have which the overrides choose.

    An option that the one before does not have either stays: it is a mistake, and is refused as such.
    """
    changed = dict(tree)
    for section, (schema, key, registry) in COMPONENTS.items():
        declared, options = split_section(section, _table(changed, section))
        before = str(declared.get(key, schema.model_fields[key].default))
        chosen = overrides.get(f"{section}.{key}", before)
        if chosen != before and isinstance(chosen, str) and chosen in registry:
            old = options_model(registry.resolve(before), schema.model_fields) if before in registry else None
            new = options_model(registry.resolve(chosen), schema.model_fields)
            changed[section] = declared | _common(options, old, new)
    for side in ("generator", "discriminator"):
        values = _table(optimizers := _table(changed, "optimizer"), side)
        before = str(values.get("name", "adam"))
        chosen = overrides.get(f"optimizer.{side}.name", before)
        if chosen != before and isinstance(chosen, str) and chosen in _OPTIMIZERS:
            common = _common(values, _OPTIMIZERS.get(before), _OPTIMIZERS[chosen])
            changed["optimizer"] = {**optimizers, side: common}
    return changed


def _common(options: Mapping[str, Any], old: type[BaseModel] | None, new: type[BaseModel]) -> dict[str, Any]:
    """The options without those that only `old` has; without all that `new` lacks where `old` is not known."""
    gone = options.keys() if old is None else old.model_fields.keys()
    return {option: value for option, value in options.items() if option in new.model_fields or option not in gone}


def _table(tree: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A copy of a section; empty if it is missing or no section, as in a damaged record."""
    return dict(found) if isinstance(found := tree.get(part), Mapping) else {}


def _put(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Sets a value in place; the sections around it are copied."""
    for part in parts[:-1]:
        tree[part] = _table(tree, part)
        tree = tree[part]
    tree[parts[-1]] = value
