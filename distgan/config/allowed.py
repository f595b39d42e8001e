"""What may be written for a key, in words, from its type: `integer, 1 to 4096`, `adam or rmsprop`, `true or false`."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from typing_extensions import Doc


def allowed(annotation: Any, marks: Sequence[Any] = ()) -> str:
    """The values of a type with its ranges, such as `Annotated[int, Ge(1)] | None`; `marks` are further ranges."""
    annotation, marks = _without_marks(annotation, marks)
    members = get_args(annotation)
    if get_origin(annotation) is Literal:
        return either(map(str, members))
    if get_origin(annotation) in {Union, types.UnionType}:
        values = [allowed(member, marks) for member in members if member is not types.NoneType]
        return ", or ".join([*values, "null"] if types.NoneType in members else values)
    if get_origin(annotation) is list:
        return f"list, each {allowed(members[0])}"
    if annotation is bool:
        return "true or false"
    if annotation is int:
        return _integer(marks)
    if annotation is float:
        return _number(marks)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return "text" if annotation is str else getattr(annotation, "__name__", str(annotation))


def documentation(annotation: Any, marks: Sequence[Any] = ()) -> str:
    """The `Doc` of a type, or of a member of a union; empty where it has none."""
    annotation, marks = _without_marks(annotation, marks)
    found = [mark.documentation for mark in marks if isinstance(mark, Doc)]
    if not found and get_origin(annotation) in {Union, types.UnionType}:
        found = [text for member in get_args(annotation) if (text := documentation(member))]
    return found[0] if found else ""


def either(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def value_text(value: Any) -> str:
    """A value as one writes it after `KEY=`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-").replace("e+0", "e")
    return str(value) or "''"


def _without_marks(annotation: Any, marks: Sequence[Any]) -> tuple[Any, list[Any]]:
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
