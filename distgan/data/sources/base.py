"""What a source of images is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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
