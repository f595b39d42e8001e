"""Memory of a stream: decoded samples that are kept, and the images of batches."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# libjpeg-turbo writes past the cache where rows are aligned to 16 or 32 bytes: small images take 15 % longer then.
_OFF_ALIGNMENT = 8


class DecodedSamples:
    """Decoded samples of ascending ranges [first, stop), as many as fit into `memory_bytes`; one place for each.

    Several threads may use it: they keep the same image of a sample.

    Attributes:
        substitutes: bad samples met so far, and the substitute of each.
    """

    def __init__(self, shape: tuple[int, int, int], ranges: Sequence[tuple[int, int]], memory_bytes: int) -> None:
        channels, height, width = shape
        self.image_shape = height, width, channels
        sizes = [stop - first for first, stop in ranges]
        self._firsts = np.array([first for first, _ in ranges])
        # A sample's place is its number minus the preceding numbers that are in no range.
        self._left_out = self._firsts - np.cumsum([0, *sizes[:-1]])
        capacity = min(sum(sizes), memory_bytes // int(np.prod(shape)))
        # Untouched pages take no memory, so this grows with the decoded samples.
        self._pixels = np.empty((capacity, *self.image_shape), np.uint8)
        self._known = np.zeros(capacity, bool)
        self.substitutes: dict[int, int] = {}

    def places(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples' places, those that do not fit included."""
        places: NDArray[np.int64] = samples - self._left_out[np.searchsorted(self._firsts, samples, side="right") - 1]
        return places

    def has(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which places have their image."""
        known = np.zeros(len(places), bool)
        inside = places < len(self._known)
        known[inside] = self._known[places[inside]]
        return known

    def copy(self, places: NDArray[np.int64], chosen: NDArray[np.bool_], rows: NDArray[np.uint8]) -> None:
        """Copies the images of the chosen places to the same rows, (N, H, W, C)."""
        if chosen.all():
            np.take(self._pixels, places, axis=0, out=rows, mode="clip")
        elif chosen.any():
            rows[chosen] = self._pixels[places[chosen]]

    def keep(self, place: int, pixels: NDArray[np.uint8]) -> None:
        """Keeps an image, (H, W, C), if it fits."""
        if place < len(self._known):
            self._pixels[place] = pixels
            self._known[place] = True


class BatchMemory:
    """Memory for the images of batches, uint8 (N, H, W, C); given out again once no tensor has it.

    The first write to a page of fresh memory costs as much as decoding a few hundred pixels.
    """

    def __init__(self, shape: tuple[int, int, int, int], most_free: int) -> None:
        self._shape = shape
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=most_free)

    def take(self, *, pinned: bool = False) -> Tensor:
        """A tensor of any content. Pinned memory is kept and given out again by torch."""
        size = math.prod(self._shape) + _OFF_ALIGNMENT
        if pinned:
            memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            return memory[_OFF_ALIGNMENT:].view(self._shape)
        kept = self._free.pop() if self._free else np.empty(size, np.uint8)
        view = kept[_OFF_ALIGNMENT:].reshape(self._shape)  # lives as long as the tensors that share its memory
        weakref.finalize(view, self._free.append, kept).atexit = False
        return torch.from_numpy(view)
