"""A folder of image files: one sub-folder a class, classes in the files' names, or all files in one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distgan.bounds import time_limit
from distgan.data.sources.base import MAX_LABEL
from distgan.data.sources.image_files import SUFFIXES, read_image
from distgan.data.storage import translate_errors
from distgan.errors import UserError

_PATTERN_S = 1.0  # for a name


class FolderSource:
    """Images below a folder, ordered by path.

    Its sub-folders, if any, are the classes, ordered by name. With a `label_pattern` the files' names say the class
    and the folders nothing: the pattern is searched in a name without its suffix, and what its first group matched,
    or all of it where it has no group, is the class. `^(.+) [0-9]{3}[LR]$` finds "3001 brick 2x4" in
    "3001 brick 2x4 000L.png".

    Attributes:
        left_out: how many files below the folder are no images, by their suffix in lower case; "" for none.
    """

    def __init__(self, path: str, label_pattern: str | None = None) -> None:
        root = Path(path)
        with translate_errors(path):
            if not root.is_dir():
                raise UserError(f"{path}: no such folder of images")
            present = sorted(file for file in root.rglob("*") if file.is_file())
        files = [file for file in present if file.suffix.lower() in SUFFIXES]
        self.left_out = Counter(file.suffix.lower() for file in present if file.suffix.lower() not in SUFFIXES)
        if not files:
            raise UserError(f"{path}: no image files below it ({', '.join(sorted(SUFFIXES))})")
        labels = _folders(root, files) if label_pattern is None else _matches(label_pattern, files)
        self.classes = sorted(set(labels) - {""})
        for name in self.classes:
            if name.encode(errors="replace").decode() != name:
                raise UserError(f"{path}: the class {name!r} has a name that is not UTF-8; rename it")
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._items = [(file, numbers.get(label, -1)) for file, label in zip(files, labels, strict=True)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self._items[number]
        return read_image(path, self.name(number)), label

    def name(self, number: int) -> str:
        return str(self._items[number][0])


def _folders(root: Path, files: list[Path]) -> list[str]:
    """The folder of each file within the root; "" for all where they lie in the root itself."""
    folders = [file.relative_to(root).parts[0] if file.parent != root else "" for file in files]
    if "" in folders and any(folders):
        raise UserError(f"{files[folders.index('')]}: lies beside class folders; move it into one of them")
    return folders


def _matches(pattern: str, files: list[Path]) -> list[str]:
    """What the pattern finds in each file's name."""
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"--label-pattern {pattern!r}: not a regular expression: {error}") from None
    group = min(compiled.groups, 1)
    labels = []
    for file in files:
        try:
            with time_limit(_PATTERN_S):
                found = compiled.search(file.stem)
        except TimeoutError:
            raise UserError(
                f"{file}: --label-pattern {pattern!r} takes more than a second for its name; write one without a "
                f"repetition inside a repetition, as (a+)+"
            ) from None
        if found is None or not found[group]:
            raise UserError(f"{file}: --label-pattern {pattern!r} finds no class in its name {file.stem!r}")
        labels.append(found[group])
    if len(set(labels)) > MAX_LABEL + 1:
        raise UserError(f"--label-pattern {pattern!r} finds {len(set(labels))} classes; at most {MAX_LABEL + 1} can be")
    return labels
