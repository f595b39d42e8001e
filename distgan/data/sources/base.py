"""What a source of images is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """Labelled images that can be addressed by number and pickled to other processes."""

    @property
    def classes(self) -> list[str]:
        """Class names; a label is an index into them. Empty where there are no labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """Image uint8 (H, W) or (H, W, C) and label (−1 for none). Raises UserError where it cannot be read."""
        ...
