"""NumPy archives with an array of images and optionally one of labels."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

import numpy as np
from numpy.typing import NDArray

from distgan.bounds import MOST_UNPACKED_BYTES, check_zip, open_regular
from distgan.data.labels import MAX_LABEL, numbered_classes
from distgan.data.sources.addresses import RemoteFile
from distgan.data.sources.base import Source
from distgan.errors import UserError
from distgan.storage.storage import Storage

_IMAGE_KEYS = ("images", "x", "x_train", "arr_0")

_LABEL_KEYS = ("labels", "y", "y_train", "arr_1")

# What NumPy and zipfile raise for a file that is no archive, or a damaged, encrypted or dishonest one.
_UNREADABLE = (
    OSError, ValueError, TypeError, EOFError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class NpzSource(Source):
    """`images` uint8 (N, H, W) or (N, H, W, 1 or 3) and `labels` (N,) or (N, 1) of integers from 0.

    Also accepted are the names x and y, x_train and y_train, arr_0 and arr_1. `path` is a file, local or at a URL.
    """

    def __init__(self, path: str) -> None:
        self._path = Storage.open(path).url
        try:
            with RemoteFile.at(path).on_disk(MOST_UNPACKED_BYTES) as local, open_regular(local) as file:
                check_zip(file, path)
                with np.load(file, allow_pickle=False) as archive:
                    names = archive.files
                    wanted = [next((key for key in keys if key in names), None) for keys in (_IMAGE_KEYS, _LABEL_KEYS)]
                    images, labels = (None if key is None else np.asarray(archive[key]) for key in wanted)
        except _UNREADABLE as error:
            reason = f" ({error})" if isinstance(error, OSError) else ""
            raise UserError(
                f"{path}: not a readable .npz archive of numbers{reason}; write one with numpy.savez"
            ) from None
        if images is None:
            raise UserError(f"{path}: has {', '.join(names) or 'nothing'}, but none of {', '.join(_IMAGE_KEYS)}")
        if (
            images.dtype != np.uint8
            or images.ndim not in {3, 4}
            or (images.ndim == 4 and images.shape[3] not in {1, 3})
        ):
            raise UserError(
                f"{path}: images are {images.dtype} {images.shape}; they must be uint8 (N, H, W) or (N, H, W, 1 or 3)"
            )
        if images.size == 0:
            raise UserError(f"{path}: holds no images")
        self._images: NDArray[np.uint8] = images
        self._labels = np.full(len(images), -1, np.int64) if labels is None else labels.reshape(-1)
        if len(self._labels) != len(images) or self._labels.dtype.kind not in "iu":
            raise UserError(f"{path}: labels must be {len(images)} integers, one an image")
        if labels is not None and self._labels.min() < 0:
            raise UserError(f"{path}: labels start at 0; there is a {self._labels.min()}")
        if self._labels.max() > MAX_LABEL:
            raise UserError(f"{path}: the label {self._labels.max()} is above {MAX_LABEL}; number the classes from 0")
        self.classes = numbered_classes(self._labels)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return self._images[number], int(self._labels[number])

    def name(self, number: int) -> str:
        return f"{self._path}: image {number}"
