"""The base class of data sources, and how a source is opened by its format's name."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from distgan.config.plugins import SOURCES, error_text, is_custom, options_model
from distgan.data.contents import Contents, contents_of
from distgan.data.index import REASON
from distgan.data.labels import MAX_LABEL
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.storage.urls import LOCAL_PROTOCOLS, split_url
from distgan.text import did_you_mean

_LONGEST_CLASS = 255


class Source(ABC):
    """Images by number, with or without labels: what `distgan data pack` reads.

    A format of your own is a subclass: `distgan data pack PATH --format module:Class`. Its constructor takes `path`,
    and options as keyword arguments with types (`--option NAME=VALUE`). `pack` pickles the instance to other
    processes and reads each image once, in any order; so keep names and labels in it, and open files when asked.

    Attributes:
        classes: class names; a label is an index into them. Empty where images have no labels.
        left_out: how many files the source does not take, by reason: `{"hidden": 2, ".txt": 9}`. `data info` shows
            them. A reason has 1 to 40 printable ASCII characters.
    """

    classes: Sequence[str] = ()
    left_out: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """Image `number`, uint8 (H, W) or (H, W, C), and its label, −1 for none.

        C is 1 for gray and 3 for color, 2 and 4 for these with transparency (0 is clear, 255 opaque). Images may have
        several sizes. Raises UserError, OSError or ValueError for an image that cannot be read (`--bad`).
        """

    def name(self, number: int) -> str:
        """The name of an image, for messages."""
        return f"image {number}"


def check_class(name: str, where: str) -> None:
    """Raises UserError, naming `where`, for a text that is too long for the name of a class."""
    if len(name) > _LONGEST_CLASS:
        raise UserError(
            f"{where}: the label {name[:20]!r}… has {len(name):,} characters; at most {_LONGEST_CLASS} can be a class"
        )


def named_classes(names: Sequence[str], where: str) -> tuple[list[str], list[int]]:
    """The classes in order, and the label of each name, −1 for "". Numbers are ordered as numbers.

    Raises UserError, naming `where`, for too many of them, and for long ones.
    """
    classes = set(names) - {""}
    for name in classes:
        check_class(name, where)
    if len(classes) > MAX_LABEL + 1:
        raise UserError(f"{where}: {len(classes):,} different labels; at most {MAX_LABEL + 1:,} can be classes")
    numbers = all(name.isascii() and name.isdigit() for name in classes)
    ordered = sorted(classes, key=lambda name: (int(name), name)) if numbers else sorted(classes)
    places = {name: number for number, name in enumerate(ordered)}
    return ordered, [places.get(name, -1) for name in names]


def open_source(format_name: str, path: str, options: Mapping[str, Any]) -> Source:
    """The source at `path`; `format_name` is a registered format or `module:Class`.

    Args:
        options: keyword arguments of the source's constructor. Text is converted to their types.

    Raises:
        UserError: an unknown format or option, a class that is no `Source`, and whatever the source raises it for.
    """
    target = SOURCES.resolve(format_name)
    if not issubclass(target, Source):
        raise UserError(f"--format {format_name}: not a data source; derive it from {Source.__module__}.Source")
    if "path" not in inspect.signature(target).parameters:
        raise UserError(f"--format {format_name}: its constructor has no argument `path`, which is SOURCE; add it")
    model = options_model(target, ["path"])
    for option in options:
        if option not in model.model_fields:
            raise UserError(_unknown_option(option, format_name, model.model_fields))
    try:
        values = model.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"]
        raise UserError(f"--option {key} of {format_name}: {message[:1].lower()}{message[1:]}") from None
    given = {option: getattr(values, option) for option in options}
    protocol, rest = split_url(path)
    if not is_custom(format_name) and protocol in LOCAL_PROTOCOLS and (rest != path or path.startswith("~")):
        path = Storage.open(path).root
    try:
        source: Source = target(path, **given)
        _check_metadata(source)
    except UserError as error:
        same = (format_name, "folder") if format_name == "celeba" else (format_name,)
        other = None if is_custom(format_name) else contents_of(path, same)
        if other is None or other.format in same:
            raise
        raise UserError(_wrong_format(path, format_name, other)) from error
    except Exception as error:
        if not is_custom(format_name):
            raise
        raise UserError(f"--format {format_name}: its constructor raised {error_text(error)}") from error
    return source


def parse_options(texts: Sequence[str]) -> dict[str, str | list[str]]:
    """Keyword arguments from texts `NAME=VALUE`; a repeated name gives a list. Raises UserError for another text."""
    values: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--option {text}: write --option NAME=VALUE")
        values.setdefault(name.replace("-", "_"), []).append(value)
    return {name: found if len(found) > 1 else found[0] for name, found in values.items()}


def _unknown_option(option: str, format_name: str, known: Mapping[str, object]) -> str:
    takers = [name for name in SOURCES if option in inspect.signature(SOURCES.resolve(name)).parameters]
    if not takers:
        return f"--option {option}: {format_name} has no such option{did_you_mean(option, known)}"
    flag = f"--{option.replace('_', '-')}"
    return f"{flag} is not for --format {format_name}, but for {' and '.join(takers)}; leave it out"


def _wrong_format(path: str, given: str, found: Contents) -> str:
    """What is at a path that another format, or another command, reads."""
    advice = f"use --format {found.format}" if found.format and found.address == path else found.advice
    return f"{path}: not for --format {given}, but {found.what}; {advice}"


def _check_metadata(source: Source) -> None:
    """Raises ValueError for class names or reasons that an index cannot hold."""
    for name in source.classes:
        if not isinstance(name, str):
            raise ValueError(f"the class name {name!r} is not text")
    for reason, count in source.left_out.items():
        if not re.fullmatch(REASON, reason) or not isinstance(count, int):
            raise ValueError(f"left_out has {reason!r}: {count!r}, not a reason of 1 to 40 characters and a number")
