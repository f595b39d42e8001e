"""What is measured: images in fixed chunks, so that results do not depend on who measures which."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

# Images a chunk.
CHUNK = 64


class ImageSource(Protocol):
    """Images by number, from a generator or a folder.

    count: how many there are.
    """

    count: int

    def chunk(self, number: int) -> Tensor:
        """Images number · CHUNK and on, uint8 (CHUNK, C, H, W), fewer in the last chunk; the same each time.

        Raises UserError for images that are not finite numbers, or cannot be read.
        """
        ...
