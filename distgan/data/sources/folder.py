"""A folder of image files, whose classes are its sub-folders, in the file names, in a table, or none."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distgan.bounds import MOST_RECORD_BYTES, parse_json, read_bytes, time_limit
from distgan.data.files import WITHOUT_IMAGE, kind_of_file, walk_files
from distgan.data.sources.base import MAX_LABEL, Source, numbered_classes
from distgan.data.sources.image_files import SUFFIXES, read_image
from distgan.errors import UserError
from distgan.storage.storage import translate_errors

_TABLE = "dataset.json"  # StyleGAN's labels

_PATTERN_S = 1.0  # for a name


class FolderSource(Source):
    """The images below a folder, ordered by path, as `files.walk_files` finds them.

    By default the classes are the sub-folders, if any, ordered by name, or by number if all are numbers. Labels in
    StyleGAN's `dataset.json` have priority: `{"labels": [["00000/img00000000.png", 6], …]}`, or null for none.

    A `label_pattern` takes the classes from the file names. The pattern is searched in a name without its suffix; its
    first group, or the whole match if it has no group, is the class: `^(.+) [0-9]{3}[LR]$` finds "3001 brick 2x4" in
    "3001 brick 2x4 000L.png".
    """

    def __init__(self, path: str, label_pattern: str | None = None) -> None:
        root = Path(path)
        with translate_errors(path):
            if not root.is_dir():
                raise UserError(f"{path}: no such folder of images")
        present, left_out = walk_files(root)
        files = [file for file in present if file.suffix.lower() in SUFFIXES]
        table = _read_table(root / _TABLE) if label_pattern is None and root / _TABLE in present else None
        left_out += Counter(
            kind_of_file(file.name)
            for file in present
            if file.suffix.lower() not in SUFFIXES and (table is None or file != root / _TABLE)
        )
        if not files:
            raise UserError(f"{path}: no image files below it ({', '.join(sorted(SUFFIXES))})")
        if table is not None:
            self.classes, labels = _from_table(root, files, table)
            left_out[WITHOUT_IMAGE] = len(table) - len(files) if table else 0
        else:
            self.classes, labels = _numbered(
                _folders(root, files) if label_pattern is None else _matches(label_pattern, files)
            )
        for name in self.classes:
            if name.encode(errors="replace").decode() != name:
                raise UserError(f"{path}: the class {name!r} has a name that is not UTF-8; rename it")
        self.left_out = +left_out  # without zeros
        self._items = list(zip(files, labels, strict=True))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        path, label = self._items[number]
        return read_image(path, self.name(number)), label

    def name(self, number: int) -> str:
        return str(self._items[number][0])


def _from_table(root: Path, files: list[Path], table: dict[str, int]) -> tuple[list[str], list[int]]:
    """Classes and labels from the table; all labels are −1 if it has none."""
    if not table:
        return [], [-1] * len(files)
    names = [file.relative_to(root).as_posix() for file in files]
    missing = [name for name in names if name not in table]
    if missing:
        raise UserError(
            f"{root / _TABLE}: has no label for {missing[0]} ({len(missing):,} such in all); write them into it, "
            f"or remove it to have folders as classes"
        )
    labels = [table[name] for name in names]
    return numbered_classes(np.array(labels)), labels


def _numbered(names: list[str]) -> tuple[list[str], list[int]]:
    """The classes in order, and the label of each name, −1 for "". Numbers are ordered as numbers."""
    classes = set(names) - {""}
    numbers = all(name.isascii() and name.isdigit() for name in classes)
    ordered = sorted(classes, key=lambda name: (int(name), name)) if numbers else sorted(classes)
    places = {name: number for number, name in enumerate(ordered)}
    return ordered, [places.get(name, -1) for name in names]


def _read_table(path: Path) -> dict[str, int] | None:
    """The label of each file in StyleGAN's table, empty if it has none; None for another file of this name.

    Raises UserError for labels that are no class numbers.
    """
    with translate_errors(str(path)):
        content = read_bytes(path, MOST_RECORD_BYTES)
    try:
        found = parse_json(content)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}; write it again, or remove it") from None
    if not isinstance(found, dict) or "labels" not in found:
        return None
    rows = found["labels"] or []
    table: dict[str, int] = {}
    for name, label in _rows(rows, path) if isinstance(rows, list) else ():
        if table.setdefault(name, label) != label:
            raise UserError(f"{path}: labels: {name} has the labels {table[name]} and {label}; leave one of them out")
    if rows and not table:
        raise UserError(f"{path}: its labels are no list of [file, label]; write it again, or remove it")
    return table


def _rows(rows: list[Any], path: Path) -> Iterable[tuple[str, int]]:
    for number, row in enumerate(rows):
        match row:
            case [str(name), int() | float() as label] if label is not True and label is not False:
                if label == label // 1 and 0 <= label <= MAX_LABEL:
                    yield name.replace("\\", "/"), int(label)
                    continue
        raise UserError(
            f"{path}: labels: row {number} is {json.dumps(row)[:60]}, not a file and the number of its class from 0 to "
            f"{MAX_LABEL}; write it again, or remove it to have folders as classes"
        )


def _folders(root: Path, files: list[Path]) -> list[str]:
    """The sub-folder of each file; "" for all if they are in the root itself."""
    folders = [file.relative_to(root).parts[0] if file.parent != root else "" for file in files]
    if "" in folders and any(folders):
        raise UserError(f"{files[folders.index('')]}: lies beside class folders; move it into one of them")
    return folders


def _matches(pattern: str, files: list[Path]) -> list[str]:
    """The class that the pattern finds in each file's name."""
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
