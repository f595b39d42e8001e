"""The entries of a space as a user gives them: YAML files or URLs, `KEY=DISTRIBUTION`, the `search` of a preset."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distgan.bounds import NOT_YAML, parse_yaml, read_text, yaml_reason
from distgan.config.load import SEARCH, load_search, preset_names
from distgan.errors import UserError
from distgan.search.expressions import is_number, number_text, value_text
from distgan.storage.storage import NotFoundError, Storage


def default_entries(preset_or_file: str) -> dict[str, str]:
    """The entries of the `search` section of a preset or of a file on this machine, for `Space.parse`.

    Raises UserError where there is no such section, and for the URL of a configuration: a file from elsewhere does
    not say what is searched here.
    """
    section, where = (None, preset_or_file) if "://" in preset_or_file else load_search(preset_or_file)
    if section is None:
        raise UserError(
            f"{where:.200}: no space of its own: it has no section `{SEARCH}`; give one with --space: "
            f"KEY=DISTRIBUTION, as optimizer.generator.lr=loguniform(1e-5, 1e-3), a file, or a preset's name"
        )
    return _entries(section, f"{where:.200}: {SEARCH}")


_ARGUMENT = re.compile(r"\s*([\w.]+)\s*=(.*)", re.DOTALL)

_LARGEST_FILE = 100_000


def read_entries(words: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """The text of each entry, for `Space.parse`, from a mapping, or from files, URLs, presets and `KEY=DISTRIBUTION`.

    The last ones win over the others.

    Raises UserError for what cannot be read.
    """
    if isinstance(words, Mapping):
        return _entries(dict(words), "space")
    files: dict[str, str] = {}
    given: dict[str, str] = {}
    for word in words:
        argument = _ARGUMENT.fullmatch(word)
        if argument:
            given[argument[1]] = argument[2]
        elif word in preset_names():
            files |= default_entries(word)
        else:
            files |= parse_file(_read(word), f"{word:.200}")
    return files | given


def parse_file(text: str, where: str) -> dict[str, str]:
    """The entries of a YAML mapping of dotted keys to expressions; `where` names it in errors."""
    try:
        tree = parse_yaml(text)
    except NOT_YAML as error:
        raise UserError(f"{where}: not valid YAML{yaml_reason(error)}") from None
    return _entries(tree, where)


def _entries(tree: object, where: str) -> dict[str, str]:
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise UserError(
            f"{where}: a space is a mapping of keys to expressions, as in "
            f"`optimizer.generator.lr: loguniform(1e-5, 1e-3)`"
        )
    return {key: _expression(where, key, value) for key, value in tree.items()}


def _expression(where: str, key: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return value_text(value)
    if is_number(value) and math.isfinite(value):
        return number_text(value)
    remedy = "write choice(VALUE, VALUE), or a list in quotes"
    if isinstance(value, dict):
        remedy = f"write dotted keys, as {key}.KEY, and quote expressions that have a comma, inside braces"
    raise UserError(f"{where}: {key:.80}: a {type(value).__name__} is no expression; {remedy}")


def _read(name: str) -> str:
    try:
        if "://" in name:
            folder, _, file = name.rpartition("/")
            return Storage.open(folder).read_bytes(file, most=_LARGEST_FILE).decode("utf-8")
        return read_text(Path(name), _LARGEST_FILE)
    except (FileNotFoundError, NotFoundError):
        raise UserError(
            f"{name:.200}: no such file; name a YAML file, or write KEY=DISTRIBUTION as in "
            f"optimizer.generator.lr=loguniform(1e-5, 1e-3)"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the space {name:.200}: {reason}") from None
