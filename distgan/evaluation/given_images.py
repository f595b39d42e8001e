"""Given images to evaluate: a folder of files, or an array as `distgan sample` writes it."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from distgan.bounds import open_regular, read_bytes
from distgan.data.files import kind_of_file, walk_files
from distgan.data.images import (
    EXTENSIONS,
    FORMATS,
    UNREADABLE,
    check_pixels,
    decode_image,
    native_channels,
    unreadable_reason,
)
from distgan.errors import UserError
from distgan.evaluation.image_source import CHUNK
from distgan.storage.storage import translate_errors

_SUFFIXES = {f".{extension}" for extension in EXTENSIONS}

_ARRAYS = {".npy", ".npz"}

_IN_NPZ = "arr_0"

_MOST_FILE_BYTES = 2**29  # of one image

# Raised by NumPy and zipfile for a file that is no array, or damaged.
NO_ARRAY = (
    ValueError, TypeError, EOFError, KeyError, SyntaxError, RuntimeError, OverflowError, MemoryError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class GivenImages(Protocol):
    """An `ImageSource` of square images of one size.

    count: how many are evaluated, of `available`. left_out: other files of a folder, by kind.
    shape: (channels, height, width).
    """

    count: int
    available: int
    left_out: Counter[str]
    shape: tuple[int, int, int]

    def chunk(self, number: int) -> Tensor: ...


def is_given(source: str) -> bool:
    """Whether `source` names images: an array, or a folder that is neither a run nor a checkpoint."""
    path = Path(source)
    if path.suffix.lower() in _ARRAYS:
        return True
    if not source or not path.is_dir():
        return False
    checkpoints = "checkpoints"
    return not (path / checkpoints).is_dir() and path.absolute().parent.name != checkpoints


def open_images(source: str, count: int | None = None) -> GivenImages:
    """The first `count` images at a path, by default all of them.

    Raises UserError for a URL, for no or too few images, and for images that cannot be read or differ in size.
    """
    if "://" in source:
        raise UserError(f"{source}: images are read from this machine's disk; copy them there, and give the path")
    path = Path(source)
    return ImageArray(path, count) if path.suffix.lower() in _ARRAYS else ImageFolder(path, count)


class ImageFolder:
    """The image files (`EXTENSIONS`) in a folder, without sub-folders, ordered by name. See `GivenImages`."""

    def __init__(self, path: Path, count: int | None = None) -> None:
        """Reads the sizes of all images, no pixels."""
        present, self.left_out = walk_files(path, below=False)
        files = [file for file in present if file.suffix.lower() in _SUFFIXES]
        self.left_out += Counter(kind_of_file(file.name) for file in present if file.suffix.lower() not in _SUFFIXES)
        if not files:
            raise UserError(
                f"{path}: no images in it ({', '.join(EXTENSIONS)}; those in sub-folders do not count); give a folder "
                f"of images, an .npy or .npz file, or a run that has checkpoints"
            )
        self.available, self.count = len(files), _checked_count(count, len(files), path)
        self._files = files[: self.count]
        self.shape = _header(files[0])
        for file in self._files:
            shape = _header(file)
            if shape != self.shape:
                raise UserError(
                    f"{file}: is {_size_text(shape)}, and {files[0].name} is {_size_text(self.shape)}; all must have "
                    f"one size and the same channels: convert or remove the others"
                )
        _check_square(self.shape, path)

    def chunk(self, number: int) -> Tensor:
        """Raises UserError for a file that cannot be decoded."""
        files = self._files[number * CHUNK : (number + 1) * CHUNK]
        return torch.from_numpy(np.stack([self._decoded(file) for file in files]))

    def _decoded(self, file: Path) -> NDArray[np.uint8]:
        with translate_errors(str(file)):
            data = read_bytes(file, _MOST_FILE_BYTES)
        try:
            return decode_image(data, self.shape[1], self.shape[0])
        except ValueError as error:
            raise UserError(f"{file}: cannot be used: {error}; write it again, or leave it out") from None


class ImageArray:
    """uint8 (N, H, W, 1 or 3), or (N, H, W): an .npy file, or `arr_0` of an .npz file. See `GivenImages`.

    It is read chunk by chunk, and need not fit in memory. Ascending chunks are read fastest.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        self._path = path
        self.left_out: Counter[str] = Counter()
        with self._reading():
            self._file = _opened_array(path)
            shape, fortran, dtype = _array_header(self._file)
            self._begin = self._file.tell()
        if dtype != np.uint8 or fortran or len(shape) not in {3, 4} or (len(shape) == 4 and shape[3] not in {1, 3}):
            raise UserError(
                f"{path}: holds {dtype} {shape}{' in Fortran order' if fortran else ''}; images must be uint8 "
                f"(N, H, W, 1 or 3)"
            )
        if 0 in shape:
            raise UserError(f"{path}: holds no images; give another file")
        self.available, self.count = shape[0], _checked_count(count, shape[0], path)
        self.shape = (shape[3] if len(shape) == 4 else 1, shape[1], shape[2])
        _check_square(self.shape, path)

    def chunk(self, number: int) -> Tensor:
        """Raises UserError where the file ends before, or is damaged."""
        channels, height, width = self.shape
        first = number * CHUNK
        images, size = min(CHUNK, self.count - first), channels * height * width
        with self._reading():
            self._file.seek(self._begin + first * size)
            data = self._file.read(images * size)
            pixels = np.frombuffer(data, np.uint8).reshape(images, height, width, channels)
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises UserError for errors of NumPy, zipfile and the disk."""
        try:
            with translate_errors(str(self._path)):
                yield
        except NO_ARRAY as error:
            raise UserError(
                f"{self._path}: not a whole {self._path.suffix} file of images{_reason(error)}; write it again"
            ) from None


def _opened_array(path: Path) -> IO[bytes]:
    """An array in NumPy's own format, as a seekable file."""
    if path.suffix.lower() == ".npy":
        return open_regular(path)
    return zipfile.ZipFile(open_regular(path)).open(f"{_IN_NPZ}.npy")


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type; leaves `file` at the first number."""
    if np.lib.format.read_magic(file) == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _reason(error: Exception) -> str:
    return f" (it has no {_IN_NPZ})" if isinstance(error, KeyError) else ""


def _header(file: Path) -> tuple[int, int, int]:
    """(channels, height, width) of an image file, without its pixels."""
    with translate_errors(str(file)):
        opened = open_regular(file)
    try:
        with opened, Image.open(opened, formats=FORMATS) as image:
            check_pixels(*image.size)
            return native_channels(image), image.height, image.width
    except UNREADABLE as error:
        raise UserError(
            f"{file}: not a readable image: {unreadable_reason(error)}; write it again, or leave it out"
        ) from None


def _checked_count(wanted: int | None, available: int, path: Path) -> int:
    if wanted is not None and wanted > available:
        raise UserError(f"--samples {wanted}: {path} holds {available:,} images; make more of them, or ask for fewer")
    return available if wanted is None else wanted


def _check_square(shape: tuple[int, int, int], path: Path) -> None:
    if shape[1] != shape[2]:
        raise UserError(f"{path}: its images are {_size_text(shape)}; only square ones can be evaluated")


def _size_text(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels, {'gray' if channels == 1 else 'RGB'}"
