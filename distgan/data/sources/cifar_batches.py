"""The files of CIFAR-10 and CIFAR-100 in both their forms: Python's pickles and plain binary records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distgan.data.sources.plain_pickle import PickledArray, load_plain_dict
from distgan.errors import UserError

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE  # the red plane, the green and the blue one, each by rows
_AGAIN = "get the file again"


@dataclass(frozen=True)
class Batch:
    """Images uint8 (N, 3072) of a file and their labels, int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Form(ABC):
    """One of the four downloads.

    Attributes:
        folder: the folder that its archive has inside.
        train, test: names of the files with images.
        names: the file with the classes' names, by the kind of label; the first kind is the usual one.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: dict[str, str]

    @abstractmethod
    def read_names(self, file: BinaryIO, where: str, kind: str) -> list[str]:
        """Class names of a kind of label. Raises UserError, naming the file as `where`, if there are none."""

    @abstractmethod
    def read_batch(self, file: BinaryIO, where: str, kind: str) -> Batch:
        """Raises UserError, naming the file as `where`, if it is cut short or no such batch."""


@dataclass(frozen=True)
class PythonForm(Form):
    """Pickled dicts: `data` is the images, and each kind of label has its list."""

    names_key: dict[str, str]
    labels_key: dict[str, str]

    def read_names(self, file: BinaryIO, where: str, kind: str) -> list[str]:
        names = load_plain_dict(file, where).get(self.names_key[kind])
        if not isinstance(names, list) or not names:
            raise UserError(f"{where}: has no list {self.names_key[kind]!r}; {_AGAIN}")
        return [_text(name, where) for name in names]

    def read_batch(self, file: BinaryIO, where: str, kind: str) -> Batch:
        content = load_plain_dict(file, where)
        images, labels = content.get("data"), content.get(self.labels_key[kind])
        try:
            if not isinstance(images, PickledArray):
                raise ValueError("not an array")
            pixels = images.unsigned_bytes().reshape(-1, IMAGE_BYTES)
            if not len(pixels):
                raise ValueError("an empty array")
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{where}: 'data' is not images of {IMAGE_BYTES} bytes: {error}; {_AGAIN}") from None
        if not isinstance(labels, list) or len(labels) != len(pixels) or not all(map(_is_label, labels)):
            raise UserError(
                f"{where}: {self.labels_key[kind]!r} is not a list of {len(pixels)} labels, one an image; {_AGAIN}"
            )
        return Batch(pixels, np.array(labels, np.int64))


@dataclass(frozen=True)
class BinaryForm(Form):
    """Records of a byte for each kind of label, then the image; names are lines of text."""

    label_place: dict[str, int]

    def read_names(self, file: BinaryIO, where: str, kind: str) -> list[str]:
        names = file.read().split()
        if not names:
            raise UserError(f"{where}: has no names of classes; {_AGAIN}")
        return [_text(name, where) for name in names]

    def read_batch(self, file: BinaryIO, where: str, kind: str) -> Batch:
        record = len(self.label_place) + IMAGE_BYTES
        content = np.frombuffer(file.read(), np.uint8)
        if not len(content) or len(content) % record:
            raise UserError(f"{where}: its {len(content):,} bytes are not whole records of {record:,}; {_AGAIN}")
        records = content.reshape(-1, record)
        return Batch(records[:, len(self.label_place) :], records[:, self.label_place[kind]].astype(np.int64))


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= 0xFF


def _text(name: object, where: str) -> str:
    try:
        text = name.decode() if isinstance(name, bytes) else name
    except UnicodeDecodeError:
        text = None
    if not isinstance(text, str) or not text.isprintable() or not text:
        raise UserError(f"{where}: a class has a name that is no text; {_AGAIN}")
    return text


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
FORMS: tuple[Form, ...] = (
    PythonForm(
        folder="cifar-10-batches-py",
        train=_BATCHES,
        test=("test_batch",),
        names={"class": "batches.meta"},
        names_key={"class": "label_names"},
        labels_key={"class": "labels"},
    ),
    PythonForm(
        folder="cifar-100-python",
        train=("train",),
        test=("test",),
        names={"fine": "meta", "coarse": "meta"},
        names_key={"fine": "fine_label_names", "coarse": "coarse_label_names"},
        labels_key={"fine": "fine_labels", "coarse": "coarse_labels"},
    ),
    BinaryForm(
        folder="cifar-10-batches-bin",
        train=tuple(f"{name}.bin" for name in _BATCHES),
        test=("test_batch.bin",),
        names={"class": "batches.meta.txt"},
        label_place={"class": 0},
    ),
    BinaryForm(
        folder="cifar-100-binary",
        train=("train.bin",),
        test=("test.bin",),
        names={"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt"},
        label_place={"coarse": 0, "fine": 1},
    ),
)
