"""`distgan data show`: a contact sheet of a data set, with a row for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distgan.config.schema import DataConfig
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.data.preview import choose_samples, read_samples
from distgan.data.shard_checks import open_index
from distgan.errors import UserError
from distgan.storage.local_files import is_special, replacing
from distgan.storage.storage import Storage, translate_errors
from distgan.tracking.grids import enlargement, image_grid, png_bytes, with_row_names

_COLUMNS, _MOST_ROWS = 10, 50

# Pixels a side; larger images are reduced.
_LARGEST = 128


@dataclass(frozen=True)
class ContactSheet:
    """What a sheet shows.

    Attributes:
        images: on the sheet.
        classes: that have a row.
        unreadable: images that cannot be read, whose places stay white.
    """

    index: Index
    images: int
    classes: int
    unreadable: int


def write_contact_sheet(url: str, out: str, seed: int = 0) -> ContactSheet:
    """Writes a sheet of the data set at `url` as a PNG file; the same images for the same seed.

    A data set with labels has a row for each class, with its name and number of images; of more than 50 classes, 50
    evenly spaced ones. Images are stretched to squares, as in training with `data.resize`.

    Raises UserError where the data cannot be read or the file cannot be written.
    """
    path = Path(out).expanduser()
    _check_out(out, path)
    storage = Storage.open(url)
    index = open_index(storage)
    size = min(index.header.image_size or _LARGEST, _LARGEST)
    data = DataConfig(url=storage.url, resize="bilinear", bad_samples="skip")
    dataset = Dataset.open(data, (index.header.channels, size, size))
    labels = _labels(index)
    if labels:
        chosen = [choose_samples(index, label, _COLUMNS, seed) for label in labels]
    else:
        chosen = list(choose_samples(index, None, _COLUMNS * _COLUMNS, seed).reshape(-1, 1))
    images, unreadable = read_samples(dataset, chosen, _COLUMNS if labels else 1)
    grid = image_grid(torch.from_numpy(images).flatten(0, 1), _COLUMNS, scale=enlargement(size))
    if labels:
        grid = with_row_names(grid, [_row_name(index, label) for label in labels])
    with translate_errors(str(path)), replacing(path) as partial:
        partial.write_bytes(png_bytes(grid))
    return ContactSheet(
        index, sum(map(len, chosen)) - unreadable, len([each for each in labels if each >= 0]), unreadable
    )


def _labels(index: Index) -> list[int]:
    """The labels of the rows, −1 for images without; none where there are no labels."""
    found = np.unique(index.labels)
    labels = found[found >= 0]
    if len(labels) > _MOST_ROWS:
        labels = labels[np.linspace(0, len(labels) - 1, _MOST_ROWS).round().astype(int)]
    return [*labels.tolist(), *([-1] if found[0] < 0 else [])] if len(labels) else []


def _row_name(index: Index, label: int) -> str:
    name = index.header.classes[label] if 0 <= label < len(index.header.classes) else "no label"
    return f"{name}\n{int((index.labels == label).sum()):,}"


def _check_out(out: str, path: Path) -> None:
    """Raises UserError unless a PNG file can be written there; called before anything is read."""
    if "://" in out or is_special(path) or path.suffix.lower() != ".png":
        raise UserError(f"--out {out}: give the name of a .png file on this machine")
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {path.parent}; make it, or name another file")
