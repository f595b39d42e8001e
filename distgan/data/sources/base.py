"""What a source of images is, and how one is opened by its format's name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from distgan.config.plugins import SOURCES
from distgan.errors import UserError

MAX_LABEL = 65_535


def numbered_classes(labels: NDArray[np.integer]) -> list[str]:
    """Class names "0" to the largest label of at least one; none where all labels are −1."""
    return [str(label) for label in range(int(labels.max()) + 1)]


class Source(Protocol):
    """Labelled images that can be addressed by number and pickled to other processes."""

    @property
    def classes(self) -> list[str]:
        """Class names; a label is an index into them. Empty where there are no labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """Image uint8 (H, W) or (H, W, C) and label (−1 for none). Raises UserError where it cannot be read.

        C is 1 for grey and 3 for colour, 2 and 4 for these with transparency (0 is clear, 255 opaque).
        """
        ...

    def name(self, number: int) -> str:
        """What to call an image in a message."""
        ...


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
