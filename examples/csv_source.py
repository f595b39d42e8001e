"""A data source of your own: a CSV file of image paths and labels. examples/README.md shows how to run it.

distgan data pack shoes.csv --format csv_source:CsvSource --option label=kind --out shoes
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distgan.data.sources.base import Source
from distgan.data.sources.image_files import read_image
from distgan.errors import UserError


class CsvSource(Source):
    """The images that the column `path` of a CSV file names, relative to the file's folder.

    The classes are the different values of the column `label`, ordered by name; without such a column there are none.
    """

    def __init__(self, path: str, label: str = "label", delimiter: str = ",") -> None:
        table = Path(path)
        try:
            with table.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file, delimiter=delimiter))
        except (OSError, UnicodeError, csv.Error) as error:
            raise UserError(f"{path}: not a CSV file: {error}") from None
        if not rows or "path" not in rows[0]:
            raise UserError(f"{path}: it needs a line with the names of its columns, one of them `path`, and rows")
        names = [row.get(label) or "" for row in rows]
        self.classes = sorted(set(names) - {""})
        numbers = [self.classes.index(name) if name else -1 for name in names]
        self._items = [(table.parent / row["path"], number) for row, number in zip(rows, numbers, strict=True)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self._items[number]
        return read_image(path, str(path)), label  # any format, upright, with its transparency

    def name(self, number: int) -> str:
        return str(self._items[number][0])
