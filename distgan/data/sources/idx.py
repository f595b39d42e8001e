"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from distgan.bounds import MOST_UNPACKED_BYTES, check_unpacked, open_regular
from distgan.data.files import is_hidden
from distgan.data.labels import numbered_classes
from distgan.data.sources.addresses import RemoteFile, is_local
from distgan.data.sources.base import Source
from distgan.errors import UserError
from distgan.storage.storage import Storage, translate_errors

_UNSIGNED_BYTE = 0x08

_MAX_DIMENSIONS = 8

_NAME = "images-idx3-ubyte"


class IdxSource(Source):
    """The images of one or several IDX files and the labels beside them.

    `path` is an images file (`…-images-idx3-ubyte`, also `.gz`), whose labels have the same name with `labels-idx1`,
    or a folder of such files, taken in the order of their names; local, or at a URL. A plain file has priority over its
    gzipped copy.
    """

    def __init__(self, path: str) -> None:
        self._path = Storage.open(path).url
        files = _image_files(path)
        if not files:
            raise UserError(f"{path}: no *-images-idx3-ubyte files in it")
        images, labels = [], []
        for file in files:
            part = _read_idx(file)
            if part.ndim != 3:
                raise UserError(f"{file}: has {part.ndim} dimensions, not the 3 of gray images")
            images.append(part)
            labels.append(_labels_beside(file, len(part)))
        shapes = {part.shape[1:] for part in images}
        if len(shapes) > 1:
            raise UserError(f"{path}: its files have images of different sizes: {sorted(shapes)}")
        self._images, self._labels = np.concatenate(images), np.concatenate(labels)
        self.classes = numbered_classes(self._labels)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return self._images[number], int(self._labels[number])

    def name(self, number: int) -> str:
        return f"{self._path}: image {number}"


def _image_files(path: str) -> list[RemoteFile]:
    """The file at a path or URL, or those of a folder there."""
    is_file = _NAME in path.rpartition("/")[2]
    if is_local(path):
        with translate_errors(path):
            is_file = not Path(path).is_dir()
    if is_file:
        return [RemoteFile.at(path)]
    folder = Storage.open(path)
    names = [name for name in folder.list() if _NAME in name and not is_hidden(name)]
    return [
        RemoteFile(folder, name) for name in names if not name.endswith(".gz") or name.removesuffix(".gz") not in names
    ]


def _read_idx(file: RemoteFile) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes. Raises UserError for another kind of file, or a truncated one."""
    try:
        with file.on_disk(MOST_UNPACKED_BYTES) as path, open_regular(path) as opened:
            packed = opened.seek(0, os.SEEK_END)
            opened.seek(0)
            gzipped = opened.read(2) == b"\x1f\x8b"
            opened.seek(0)
            unpacked = cast(IO[bytes], gzip.GzipFile(fileobj=opened)) if gzipped else opened
            return _read(unpacked, packed, str(file))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read: {error}") from None


def _read(file: IO[bytes], packed: int, path: str) -> NDArray[np.uint8]:
    """The array in an unpacked file, which had `packed` bytes. Reads no more bytes than its header announces."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != _UNSIGNED_BYTE:
        raise UserError(f"{path}: not an IDX file of unsigned bytes")
    if start[3] > _MAX_DIMENSIONS:
        raise UserError(f"{path}: has {start[3]} dimensions, not the 3 of images or the 1 of labels")
    sizes = file.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise UserError(f"{path}: not an IDX file of unsigned bytes")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    announced = math.prod(shape)
    check_unpacked(path, packed, announced)
    body = file.read(announced + 1)
    if len(body) != announced:
        found = "more" if len(body) > announced else f"{len(body)}"
        raise UserError(f"{path}: has {found} bytes of data where its header announces {announced}")
    if not body:
        raise UserError(f"{path}: holds no images or labels")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _labels_beside(images: RemoteFile, count: int) -> NDArray[np.int64]:
    file = RemoteFile(images.storage, images.name.replace("images-idx3", "labels-idx1"))
    if file == images or not file.storage.exists(file.name):
        return np.full(count, -1, np.int64)
    labels = _read_idx(file).astype(np.int64)
    if labels.shape != (count,):
        raise UserError(f"{file}: has shape {labels.shape} beside {count} images")
    return labels
