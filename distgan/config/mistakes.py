"""What is wrong with a configuration: one line a mistake, with the key, the value and what is allowed."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from distgan.config.allowed import allowed, either
from distgan.config.schema import Config, sections_of

MOST_TOLD = 3

# Pydantic's kinds of errors that say no more than that the value is not of the type, or out of its range.
_NOT_ALLOWED = ("int_", "float_", "bool_", "string_type", "list_type", "literal_error", "greater_", "less_", "finite_")
_NO_SECTION = ("model_type", "model_attributes_type", "dict_type")


def mistakes(
    error: ValidationError,
    model: type[BaseModel],
    section: str = "",
    declared: Collection[str] = (),
    elsewhere: Callable[[str], str] = lambda key: "",
) -> list[str]:
    """A line for each of pydantic's errors in `model`, the tree or the options in one of its sections.

    What was meant is looked for in the first few, which are told; of the others the line is a key.

    `declared` are the section's keys that are no options; `elsewhere` says of an unknown option who has it.
    """
    prefix = [section] if section else []
    known = known_keys(model, f"{section}." if section else "") + [f"{section}.{name}" for name in declared]
    errors = error.errors(include_url=False)
    first = [_mistake(item, model, prefix, known, elsewhere) for item in errors[:MOST_TOLD]]
    return first + [".".join(map(str, item["loc"])) for item in errors[MOST_TOLD:]]


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of a model and of its sections, those of every kind that a section can be."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        for section in sections_of(field):
            keys += known_keys(section, f"{prefix}{name}.")
    return keys


def unknown_key(key: str, known: Collection[str]) -> str:
    """`; did you mean …?` with keys of this name elsewhere, or the nearest key, or else how keys are listed."""
    section, _, name = key.rpartition(".")
    namesakes = sorted({other for other in known if other.rpartition(".")[2] == name})
    if 0 < len(namesakes) <= 3:
        return f"; did you mean {either(map(repr, namesakes))}?"
    while section and not any(other.startswith(f"{section}.") for other in known):
        section = section.rpartition(".")[0]
    beside = [other for other in known if other.rpartition(".")[0] == section]
    names = {other.rpartition(".")[2]: other for other in beside}
    near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {names[near[0]]!r}?"
    return f"; `{f'distgan keys {section}'.strip()}` lists them"


def _mistake(
    item: ErrorDetails,
    model: type[BaseModel],
    prefix: Sequence[str],
    known: Sequence[str],
    elsewhere: Callable[[str], str],
) -> str:
    parts, annotation, marks = _place(model, item["loc"])
    key, kind = ".".join([*prefix, *parts]), item["type"]
    told = key if len(key) <= 80 else f"{key[:77]}..."
    if kind == "extra_forbidden" and key in known:
        return f"{told}: not a key of {item['loc'][-2]}"
    if kind == "extra_forbidden":
        return f"{told}: unknown key{elsewhere(parts[-1]) or unknown_key(key, {*known, *known_keys(Config)})}"
    if kind == "value_error":
        reason = str(item["ctx"]["error"])
        return f"{told}: {reason}" if key else reason
    if kind == "missing":
        return f"{told}: not set; allowed: {allowed(annotation, marks)}"
    value = f"{told}={'null' if item['input'] is None else repr(item['input']):.60}"
    if kind in _NO_SECTION:
        return f"{value}: a section of keys, not a value; write {told}.KEY=VALUE (`distgan keys {told}` lists them)"
    if kind.startswith(_NOT_ALLOWED) and annotation is not None:
        return f"{value}: allowed: {allowed(annotation, marks)}"
    return f"{value}: {item['msg'][:1].lower()}{item['msg'][1:]}"


def _place(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], Any, list[Any]]:
    """The key's parts at a place that pydantic names, and the type there with its ranges; None beyond the model's.

    The kind of a section of several kinds is none of the parts, nor is the member of a union.
    """
    parts: list[str] = []
    sections: list[type[BaseModel]] = [model]
    annotation: Any = None
    marks: list[Any] = []
    for part in loc:
        if len(sections) > 1:
            sections = [kind for kind in sections if _kind_name(kind) == part]
            continue
        field = sections[0].model_fields.get(str(part)) if sections else None
        item = None if sections else _item_type(annotation)
        if not sections and item is None and not isinstance(part, int):
            break
        parts.append(str(part))
        annotation, marks = (field.annotation, field.metadata) if field else (item, [])
        sections = sections_of(field) if field else []
    return parts, annotation, marks


def _kind_name(section: type[BaseModel]) -> str:
    field: FieldInfo = section.model_fields["name"]
    return str(typing.get_args(field.annotation)[0])


def _item_type(annotation: Any) -> Any:
    """The type of a list's items, also of a list that may be null; None for other types."""
    for kind in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(kind) is list:
            return typing.get_args(kind)[0]
    return None
