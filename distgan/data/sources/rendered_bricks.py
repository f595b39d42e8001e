"""Rendered toy bricks as a source to pack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distgan.data.sources.bricks import KINDS, MAX_SIZE, MIN_SIZE, render_brick
from distgan.errors import UserError


class BrickSource:
    """`samples` renders of the seed, cycling through the kinds. Raises UserError for values out of range."""

    def __init__(self, seed: int, samples: int, image_size: int, channels: int) -> None:
        if not MIN_SIZE <= image_size <= MAX_SIZE:
            raise UserError(f"--size {image_size}: bricks are rendered at {MIN_SIZE} to {MAX_SIZE} pixels")
        if samples < 1 or seed < 0:
            raise UserError(f"--samples {samples} --seed {seed}: samples are at least 1, a seed is not negative")
        self._seed, self._samples, self._size, self._channels = seed, samples, image_size, channels
        self.classes = list(KINDS)

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return render_brick(self._seed, number, self._size, self._channels)

    def name(self, number: int) -> str:
        return f"brick {number}"
