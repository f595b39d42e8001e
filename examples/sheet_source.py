"""A data source of your own: the tiles of one large image. examples/README.md shows how to run it.

distgan data pack shoes.png --format sheet_source:SheetSource --option tile=16 --option rows=boot --option rows=sandal
    --size 16 --out shoes
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distgan.data.sources.base import Source
from distgan.data.sources.image_files import image_pixels, read_file
from distgan.errors import UserError


class SheetSource(Source):
    """The square tiles of a sheet of sprites, row by row, `tile` pixels a side.

    `rows` names the class of each row of tiles; without it there are no classes.
    """

    def __init__(self, path: str, tile: int = 32, rows: tuple[str, ...] = ()) -> None:
        self._path, self._tile = path, tile
        self._sheet = image_pixels(read_file(Path(path), path), path)  # any format, with its transparency
        height, width = self._sheet.shape[:2]
        if tile < 1 or height % tile or width % tile:
            raise UserError(f"{path}: {width}x{height} pixels are no whole tiles of {tile}; give --option tile=PIXELS")
        self._columns: int = width // tile
        count = height // tile
        if rows and len(rows) != count:
            raise UserError(f"{path}: has {count} rows, not {len(rows)}; give --option rows=NAME once for each")
        self.classes = sorted(set(rows))
        self._labels = [self.classes.index(name) for name in rows] or [-1] * count

    def __len__(self) -> int:
        return self._columns * len(self._labels)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        row, column = divmod(number, self._columns)
        top, left = row * self._tile, column * self._tile
        return self._sheet[top : top + self._tile, left : left + self._tile], self._labels[row]

    def name(self, number: int) -> str:
        return f"{self._path}: row {number // self._columns}, column {number % self._columns}"
