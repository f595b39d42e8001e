"""Configuration errors, one line each: the key, the value and what is allowed."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from typing_extensions import Doc

from distgan.config.schedule import NUMBER, SCHEDULE, Schedule
from distgan.config.schema import Config, sections_of


def allowed_values(annotation: Any, marks: Sequence[Any] = ()) -> str:
    """The values of a type in words, such as `Annotated[int, Ge(1)] | None`; `marks` are further ranges."""
    annotation, marks = _split_marks(annotation, marks)
    members = get_args(annotation)
    if get_origin(annotation) is Literal:
        return join_or(map(str, members))
    if get_origin(annotation) in {Union, types.UnionType}:
        values = [allowed_values(member, marks) for member in members if member is not types.NoneType]
        return ", or ".join([*values, "null"] if types.NoneType in members else values)
    if get_origin(annotation) is list:
        return f"list, each {allowed_values(members[0])}"
    if annotation is bool:
        return "true or false"
    if annotation is int:
        return _integer(marks)
    if annotation is float:
        return _number(marks)
    if annotation is Schedule:
        return "a schedule {from, to, until_kimg}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return "text" if annotation is str else getattr(annotation, "__name__", str(annotation))


def documentation(annotation: Any, marks: Sequence[Any] = ()) -> str:
    """The `Doc` text of a type, or of a member of a union; empty if there is none."""
    annotation, marks = _split_marks(annotation, marks)
    found = [mark.documentation for mark in marks if isinstance(mark, Doc)]
    if not found and get_origin(annotation) in {Union, types.UnionType}:
        found = [text for member in get_args(annotation) if (text := documentation(member))]
    return found[0] if found else ""


def join_or(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def value_text(value: Any) -> str:
    """A value as it is written after `KEY=`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, Schedule):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {value_text(one)}' for key, one in value.items())}}}"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")
    return str(value) or "''"


def _split_marks(annotation: Any, marks: Sequence[Any]) -> tuple[Any, list[Any]]:
    if get_origin(annotation) is Annotated:
        return annotation.__origin__, [*annotation.__metadata__, *marks]
    return annotation, list(marks)


def _integer(marks: Sequence[Any]) -> str:
    bounds = dict(_bounds(marks))
    low = bounds["above"] + 1 if "above" in bounds else bounds.get("at least")
    high = bounds["below"] - 1 if "below" in bounds else bounds.get("at most")
    if low is None:
        return "integer" if high is None else f"integer, at most {high}"
    return f"integer, {low} or more" if high is None else f"integer, {low} to {high}"


def _number(marks: Sequence[Any]) -> str:
    bounds = [f"{word} {value_text(float(bound))}" for word, bound in _bounds(marks)]
    return f"number {', '.join(bounds)}" if bounds else "number"


def _bounds(marks: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for kind, word, name in ((Gt, "above", "gt"), (Ge, "at least", "ge"), (Lt, "below", "lt"), (Le, "at most", "le")):
        for mark in marks:
            if isinstance(mark, kind):
                yield word, getattr(mark, name)


# Errors that are explained; of further ones only the keys are listed.
MAX_EXPLAINED = 3

# Pydantic's kinds of errors for a value of another type or out of range.
_NOT_ALLOWED = ("int_", "float_", "bool_", "string_type", "list_type", "literal_error", "greater_", "less_", "finite_")

_NO_SECTION = ("model_type", "model_attributes_type", "dict_type")


def error_lines(
    error: ValidationError,
    model: type[BaseModel],
    section: str = "",
    declared: Collection[str] = (),
    elsewhere: Callable[[str], str] = lambda key: "",
) -> list[str]:
    """A line for each of pydantic's errors; beyond the first `MAX_EXPLAINED` the line is the key alone.

    Args:
        model: the tree, or the options of one of its sections.
        section: name of that section.
        declared: keys of the section that are not options.
        elsewhere: says which components have an unknown option.
    """
    prefix = [section] if section else []
    known = known_keys(model, f"{section}." if section else "") + [f"{section}.{name}" for name in declared]
    errors = error.errors(include_url=False)
    first = [_error_line(item, model, prefix, known, elsewhere) for item in errors[:MAX_EXPLAINED]]
    return first + [".".join(map(str, item["loc"])) for item in errors[MAX_EXPLAINED:]]


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted keys of a model and its sections, with all kinds of a section."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        for section in sections_of(field):
            keys += known_keys(section, f"{prefix}{name}.")
    return keys


def unknown_key(key: str, known: Collection[str]) -> str:
    """`; did you mean …?` with the same name in other sections or the nearest key, else the command that lists keys."""
    section, _, name = key.rpartition(".")
    namesakes = sorted({other for other in known if other.rpartition(".")[2] == name})
    if 0 < len(namesakes) <= 3:
        return f"; did you mean {join_or(map(repr, namesakes))}?"
    while section and not any(other.startswith(f"{section}.") for other in known):
        section = section.rpartition(".")[0]
    beside = [other for other in known if other.rpartition(".")[0] == section]
    names = {other.rpartition(".")[2]: other for other in beside}
    near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {names[near[0]]!r}?"
    return f"; `{f'distgan keys {section}'.strip()}` lists them"


def _error_line(
    item: ErrorDetails,
    model: type[BaseModel],
    prefix: Sequence[str],
    known: Sequence[str],
    elsewhere: Callable[[str], str],
) -> str:
    parts, annotation, marks = _locate(model, item["loc"])
    key, kind = ".".join([*prefix, *parts]), item["type"]
    shown = key if len(key) <= 80 else f"{key[:77]}..."
    if kind == "extra_forbidden" and key in known:
        return f"{shown}: not a key of {item['loc'][-2]}"
    if kind == "extra_forbidden":
        return f"{shown}: unknown key{elsewhere(parts[-1]) or unknown_key(key, {*known, *known_keys(Config)})}"
    if kind == "value_error":
        reason = str(item["ctx"]["error"])
        return f"{shown}: {reason}" if key else reason
    if kind == "missing":
        return f"{shown}: not set; allowed: {allowed_values(annotation, marks)}"
    given = item["input"]
    text = value_text(given) if given is None or isinstance(given, Schedule) else repr(given)
    value = f"{shown}={text:.60}"
    if kind in _NO_SECTION:
        return f"{value}: a section of keys, not a value; write {shown}.KEY=VALUE (`distgan keys {shown}` lists them)"
    if kind.startswith(_NOT_ALLOWED) and annotation is not None:
        return f"{value}: allowed: {allowed_values(annotation, marks)}"
    return f"{value}: {item['msg'][:1].lower()}{item['msg'][1:]}"


def _locate(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], Any, list[Any]]:
    """The parts of the key at a pydantic location, and its type with the ranges; None for a key outside the model.

    Pydantic also names the kind of a section and the member of a union; these are left out.
    """
    parts: list[str] = []
    sections: list[type[BaseModel]] = [model]
    annotation: Any = None
    marks: list[Any] = []
    for part in loc:
        if len(sections) > 1:
            sections = [kind for kind in sections if _kind_name(kind) == part]
            continue
        if Schedule in _members(annotation) and part in (NUMBER, SCHEDULE):
            sections = [Schedule] if part == SCHEDULE else []
            continue
        field = _fields(sections[0]).get(str(part)) if sections else None
        item = None if sections else _item_type(annotation)
        if not sections and item is None and not isinstance(part, int):
            break
        parts.append(str(part))
        annotation, marks = (field.annotation, field.metadata) if field else (item, [])
        sections = [*sections_of(field)] if field else []
    return parts, annotation, marks


def _kind_name(section: type[BaseModel]) -> str:
    field: FieldInfo = section.model_fields["name"]
    return str(typing.get_args(field.annotation)[0])


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the name that they have in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _members(annotation: Any) -> list[Any]:
    """The members of a union, without their marks."""
    return [_split_marks(member, ())[0] for member in typing.get_args(annotation)]


def _item_type(annotation: Any) -> Any:
    """The type of the items of a list, which may be null; None for other types."""
    for kind in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(kind) is list:
            return typing.get_args(kind)[0]
    return None
