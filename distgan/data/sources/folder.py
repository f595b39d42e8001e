"""A folder of image files, whose classes are its sub-folders, in the file names, in a table, or none."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from distgan.bounds import MOST_RECORD_BYTES, parse_json, read_bytes, time_limit
from distgan.data.files import HIDDEN, WITHOUT_IMAGE, is_hidden, kind_of_file, walk_files
from distgan.data.images import SUFFIXES
from distgan.data.sources.addresses import RemoteFile
from distgan.data.sources.base import MAX_LABEL, named_classes, numbered_classes
from distgan.data.sources.image_files import FileSource, read_file
from distgan.errors import UserError
from distgan.storage.storage import Storage, translate_errors

_TABLE = PurePosixPath("dataset.json")  # StyleGAN's labels

_PATTERN_S = 1.0  # for a name


class FolderSource(FileSource):
    """The images below a folder, ordered by path, as `files.walk_files` finds them; or below a URL.

    By default the classes are the sub-folders, if any, ordered by name, or by number if all are numbers. Labels in
    StyleGAN's `dataset.json` have priority: `{"labels": [["00000/img00000000.png", 6], …]}`, or null for none.

    A `label_pattern` takes the classes from the file names. The pattern is searched in a name without its suffix; its
    first group, or the whole match if it has no group, is the class: `^(.+) [0-9]{3}[LR]$` finds "3001 brick 2x4" in
    "3001 brick 2x4 000L.png".
    """

    takes_urls = True

    def __init__(self, path: str, label_pattern: str | None = None) -> None:
        self._path, self._storage = path.rstrip("/") or "/", Storage.open(path)
        present, left_out = _local_files(path) if self._storage.is_local else _remote_files(self._storage)
        files = [file for file in present if file.suffix.lower() in SUFFIXES]
        has_table = label_pattern is None and _TABLE in present
        table = _read_table(self._read(_TABLE, MOST_RECORD_BYTES), self._name(_TABLE)) if has_table else None
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
        file = self._items[number][0]
        if self._storage.is_local:
            return read_file(Path(self._path) / file, self._name(file))
        return RemoteFile(self._storage, str(file)).read()

    def label(self, number: int) -> int:
        return self._items[number][1]

    def name(self, number: int) -> str:
        return self._name(self._items[number][0])

    def _name(self, file: PurePosixPath) -> str:
        return str(Path(self._path) / file) if self._storage.is_local else f"{self._path}/{file}"

    def _read(self, file: PurePosixPath, most: int) -> bytes:
        if not self._storage.is_local:
            return self._storage.read_bytes(str(file), most=most)
        with translate_errors(self._name(file)):
            return read_bytes(Path(self._path) / file, most)

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


def _local_files(path: str) -> tuple[list[PurePosixPath], Counter[str]]:
    """The files below a folder, relative to it and ordered, and what is left out."""
    root = Path(path)
    with translate_errors(path):
        if not root.is_dir():
            raise UserError(f"{path}: no such folder of images")
    files, left_out = walk_files(root)
    return [PurePosixPath(file.relative_to(root)) for file in files], left_out


def _remote_files(storage: Storage) -> tuple[list[PurePosixPath], Counter[str]]:
    """The same as `_local_files`, at a URL; a hidden folder counts as one."""
    files: list[PurePosixPath] = []
    hidden = set()
    for name in map(PurePosixPath, storage.find()):
        first = next((place for place, part in enumerate(name.parts) if is_hidden(part)), None)
        if first is None:
            files.append(name)
        else:
            hidden.add(name.parts[: first + 1])
    if not files:
        raise UserError(f"{storage.url}: no such folder of images; check the name")
    return sorted(files), Counter({HIDDEN: len(hidden)})


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
