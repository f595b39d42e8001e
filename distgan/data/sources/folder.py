"""A folder of image files: one sub-folder a class, or all files in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distgan.data.images import UNREADABLE, native_channels, to_pixels, why_unreadable
from distgan.data.storage import translate_errors
from distgan.errors import UserError

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # and none that runs a program, as Pillow does for EPS
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class FolderSource:
    """Images below a folder, ordered by path. Its sub-folders, if any, are the classes, ordered by name."""

    def __init__(self, path: str) -> None:
        root = Path(path)
        with translate_errors(path):
            if not root.is_dir():
                raise UserError(f"{path}: no such folder of images")
            files = sorted(file for file in root.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
        if not files:
            raise UserError(f"{path}: no image files below it ({', '.join(sorted(_SUFFIXES))})")
        folders = [file.relative_to(root).parts[0] if file.parent != root else "" for file in files]
        self.classes = sorted(set(folders) - {""})
        if self.classes and "" in folders:
            stray = files[folders.index("")]
            raise UserError(f"{stray}: lies beside class folders; move it into one of them")
        for name in self.classes:
            if name.encode(errors="replace").decode() != name:
                raise UserError(f"{path}: the class folder {name!r} has a name that is not UTF-8; rename it")
        self._items = [
            (file, self.classes.index(folder) if folder else -1) for file, folder in zip(files, folders, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self._items[number]
        try:
            with Image.open(path, formats=_FORMATS) as image:
                pixels = to_pixels(image, native_channels(image))
        except UNREADABLE as error:
            raise UserError(f"{path}: not a readable image: {why_unreadable(error)}") from None
        return pixels, label
