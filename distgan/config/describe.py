"""All configuration keys, for `distgan keys`: allowed values, default, description."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from distgan.config.config_errors import allowed_values, documentation, join_or, value_text
from distgan.config.plugins import COMPONENTS, NAMES, options_model
from distgan.config.schema import Config, sections_of
from distgan.errors import UserError
from distgan.text import did_you_mean


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        key: dotted, as it is written.
        allowed: its values, in words.
        default: without a preset, as it is written; empty if there is none.
        meaning: a line.
        of: the networks, objectives or optimizers that have it; empty for a key that always exists.
    """

    key: str
    allowed: str
    default: str
    meaning: str
    of: tuple[str, ...] = ()


def list_keys(wanted: str = "") -> list[Key]:
    """The keys of a section (`optimizer.generator`), else the keys that contain `wanted`; by default all.

    Networks and objectives are imported only for keys of their sections. Raises UserError if no key is found.
    """
    first = wanted.partition(".")[0]
    sections = [first] if first in Config.model_fields else list(Config.model_fields)
    keys = [key for section in sections for key in _keys_at(section)]
    if not wanted:
        return keys
    found = [key for key in keys if f"{key.key}.".startswith(f"{wanted}.")]
    found = found or [key for key in keys if wanted in key.key]
    if not found:
        names = {part for key in keys for part in (key.key, key.key.partition(".")[0], key.key.rpartition(".")[2])}
        near = did_you_mean(wanted, names) if len(wanted) < 100 else ""
        raise UserError(
            f"{wanted:.80}: no key contains this{near if 'mean' in near else '; `distgan keys` lists them all'}"
        )
    return found


def _keys_at(section: str) -> Iterator[Key]:
    field = Config.model_fields[section]
    kinds = sections_of(field)
    yield from _keys_of(kinds[0], f"{section}.") if kinds else [_key(section, field)]
    if section in COMPONENTS:
        yield from _options(section)


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        kinds = sections_of(field)
        if len(kinds) > 1:
            yield from _keys_of_kinds(kinds, field, f"{prefix}{name}.")
        elif kinds:
            yield from _keys_of(kinds[0], f"{prefix}{name}.")
        else:
            yield _key(f"{prefix}{name}", field)


def _keys_of_kinds(kinds: Sequence[type[BaseModel]], field: FieldInfo, prefix: str) -> Iterator[Key]:
    """The keys of a section of several kinds, which its key `name` distinguishes."""
    names = [allowed_values(kind.model_fields["name"].annotation) for kind in kinds]
    all_keys = [
        replace(key, of=(name,))
        for name, kind in zip(names, kinds, strict=True)
        for key in _keys_of(kind, prefix)
        if key.key != f"{prefix}name"
    ]
    meaning = kinds[0].model_fields["name"].description or ""
    yield Key(f"{prefix}name", join_or(names), value_text(field.default.name), meaning)
    yield from _merge_owners(all_keys, len(kinds))


def _options(section: str) -> Iterator[Key]:
    """The options of a section's components."""
    schema, _, registry = COMPONENTS[section]
    all_keys = [
        _key(f"{section}.{option}", field, (name,))
        for name in registry
        for option, field in options_model(registry.resolve(name), schema.model_fields).model_fields.items()
    ]
    yield from _merge_owners(all_keys, len(registry))


def _merge_owners(keys: Sequence[Key], count: int) -> Iterator[Key]:
    """Keys that differ only in their owners, merged; a key that all `count` owners have gets no owner."""
    owners: dict[Key, list[str]] = {}
    for key in keys:
        owners.setdefault(replace(key, of=()), []).extend(key.of)
    first = {key.key: place for place, key in reversed(list(enumerate(owners)))}
    for key in sorted(owners, key=lambda key: first[key.key]):
        yield replace(key, of=() if len(owners[key]) == count else tuple(owners[key]))


def _key(key: str, field: FieldInfo, of: tuple[str, ...] = ()) -> Key:
    values = allowed_values(field.annotation, field.metadata)
    registries = {f"{section}.{name}": registry for section, (_, name, registry) in COMPONENTS.items()}
    registries |= NAMES
    if key in registries:
        values = ("list, each " if values.startswith("list") else "") + join_or([*registries[key], "module:Class"])
    default = "" if field.is_required() else value_text(field.default)
    return Key(key, values, default, field.description or documentation(field.annotation, field.metadata), of)
