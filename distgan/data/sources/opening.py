"""Opens a source by its format's name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

from distgan.config.registry import SOURCES
from distgan.data.sources.base import Source
from distgan.errors import UserError


def open_source(format_name: str, path: str, options: Mapping[str, Any]) -> Source:
    """The source of a format at `path`; its constructor's other keyword arguments are its options.

    Raises UserError for an option that the format does not have, and for whatever the source raises it for.
    """
    for option in options:
        if option not in _options_of(format_name):
            takers = [name for name in SOURCES if option in _options_of(name)]
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{flag} is not for --format {format_name}, but for {' and '.join(takers)}; leave it away")
    return cast(Source, SOURCES.resolve(format_name)(path, **options))


def _options_of(format_name: str) -> set[str]:
    return inspect.signature(SOURCES.resolve(format_name)).parameters.keys() - {"path"}
