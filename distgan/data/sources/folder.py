"""Image files below a folder or in an archive; classes are its folders, in the names, in a table, or none."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from distgan.bounds import MOST_RECORD_BYTES, parse_json, time_limit
from distgan.data.files import WITHOUT_IMAGE, kind_of_file
from distgan.data.images import SUFFIXES
from distgan.data.labels import MAX_LABEL, numbered_classes
from distgan.data.sources.base import named_classes
from distgan.data.sources.image_files import FileSource
from distgan.data.sources.trees import tree_at
from distgan.errors import UserError

_TABLE = PurePosixPath("dataset.json")  # StyleGAN's labels

_PATTERN_S = 1.0  # for a name


class FolderSource(FileSource):
    """The images below a folder or inside a zip or tar file, ordered by path; local, or at a URL. See `trees`.

    By default the classes are the sub-folders, if any, ordered by name, or by number if all are numbers. Labels in
    StyleGAN's `dataset.json` have priority: `{"labels": [["00000/img00000000.png", 6], …]}`, or null for none.

    A `label_pattern` takes the classes from the file names. The pattern is searched in a name without its suffix; its
    first group, or the whole match if it has no group, is the class: `^(.+) [0-9]{3}[LR]$` finds "3001 brick 2x4" in
    "3001 brick 2x4 000L.png".
    """

    def __init__(self, path: str, label_pattern: str | None = None) -> None:
        self._tree = tree_at(path, lambda file: file.suffix.lower() in SUFFIXES or file.name == _TABLE.name)
        present, left_out = self._tree.files, self._tree.left_out
        files = [file for file in present if file.suffix.lower() in SUFFIXES]
        has_table = label_pattern is None and _TABLE in present
        table: dict[str, int] | None = None
        if has_table:
            table = _read_table(self._tree.read_table(_TABLE, MOST_RECORD_BYTES), self._name(_TABLE))
        left_out += Counter(
            kind_of_file(file.name)
            for file in present
            if file.suffix.lower() not in SUFFIXES and (table is None or file != _TABLE)
        )
        if not files:
            raise UserError(f"{path}: no image files below it ({', '.join(sorted(SUFFIXES))})")
        if table is not None:
            self.classes, labels = _from_table(files, table, self._name(_TABLE))
            left_out[WITHOUT_IMAGE] = len(table) - len(files) if table else 0
        else:
            names = self._folders(files) if label_pattern is None else self._matches(label_pattern, files)
            self.classes, labels = named_classes(names, path)
        for name in self.classes:
            if name.encode(errors="replace").decode() != name:
                raise UserError(f"{path}: the class {name!r} has a name that is not UTF-8; rename it")
        self.left_out = +left_out  # without zeros
        self._items = list(zip(files, labels, strict=True))

    def __len__(self) -> int:
        return len(self._items)

    def file(self, number: int) -> bytes:
        return self._tree.read(self._items[number][0])

    def label(self, number: int) -> int:
        return self._items[number][1]

    def name(self, number: int) -> str:
        return self._name(self._items[number][0])

    def _name(self, file: PurePosixPath) -> str:
        return self._tree.location(file)

    def _folders(self, files: list[PurePosixPath]) -> list[str]:
        """The sub-folder of each file; "" for all if they are in the root itself."""
        folders = [file.parts[0] if len(file.parts) > 1 else "" for file in files]
        if "" in folders and any(folders):
            first = self._name(files[folders.index("")])
            raise UserError(f"{first}: lies beside class folders; move it into one of them")
        return folders

    def _matches(self, pattern: str, files: list[PurePosixPath]) -> list[str]:
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
                    f"{self._name(file)}: --label-pattern {pattern!r} takes more than a second for its name; write one "
                    f"without a repetition inside a repetition, as (a+)+"
                ) from None
            if found is None or not found[group]:
                raise UserError(
                    f"{self._name(file)}: --label-pattern {pattern!r} finds no class in its name {file.stem!r}"
                )
            labels.append(found[group])
        if len(set(labels)) > MAX_LABEL + 1:
            raise UserError(
                f"--label-pattern {pattern!r} finds {len(set(labels))} classes; at most {MAX_LABEL + 1} can be"
            )
        return labels


def _from_table(files: list[PurePosixPath], table: dict[str, int], where: str) -> tuple[list[str], list[int]]:
    """Classes and labels from the table; all labels are −1 if it has none."""
    if not table:
        return [], [-1] * len(files)
    names = [file.as_posix() for file in files]
    missing = [name for name in names if name not in table]
    if missing:
        raise UserError(
            f"{where}: has no label for {missing[0]} ({len(missing):,} such in all); write them into it, "
            f"or remove it to have folders as classes"
        )
    labels = [table[name] for name in names]
    return numbered_classes(np.array(labels)), labels


def _read_table(content: bytes, path: str) -> dict[str, int] | None:
    """The label of each file in StyleGAN's table, empty if it has none; None for another file of this name.

    Raises UserError for labels that are no class numbers.
    """
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


def _rows(rows: list[Any], path: str) -> Iterable[tuple[str, int]]:
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
