"""A CSV file of image paths and labels."""

from __future__ import annotations

import csv
import io
import posixpath
from pathlib import Path

from distgan.bounds import MOST_RECORD_BYTES
from distgan.data.sources.addresses import RemoteFile
from distgan.data.sources.base import named_classes
from distgan.data.sources.columns import pick_column
from distgan.data.sources.image_files import FileSource, read_file
from distgan.errors import UserError

_PATHS = ("path", "file", "filename", "file_name", "image")

_LABELS = ("label", "class")

_DELIMITERS = ",;\t"


class CsvSource(FileSource):
    """The images that a CSV file names, in the order of its rows.

    The first line has the names of the columns; the delimiter is a comma, a semicolon or a tab. Paths are relative to
    the file, absolute, or URLs. The file itself may be at a URL; then its paths are below it, or URLs. The classes are
    the different labels, ordered by name, or by number if all are numbers; an empty label is none.
    """

    def __init__(self, path: str, image_column: str | None = None, label_column: str | None = None) -> None:
        """Raises UserError for a file that is no such table, and for columns that are missing or ambiguous."""
        self._table = RemoteFile.at(path)
        header, rows = _read(self._table)
        found = [[name for name in header if name.lower() in usual] for usual in (_PATHS, _LABELS)]
        image = pick_column("--image-column", image_column, header, found[0], (), path)
        if image is None:
            raise UserError(
                f"{path}: no column {', '.join(_PATHS[:-1])} or {_PATHS[-1]}; name the one of paths with "
                f"--image-column: {', '.join(header):.150}"
            )
        label = pick_column("--label-column", label_column, header, found[1], (), path)
        self._paths = [row[header.index(image)].strip() for row in rows]
        names = ["" if label is None else row[header.index(label)].strip() for row in rows]
        self.classes, self._labels = named_classes(names, path)
        for number, name in enumerate(self._paths):
            if not name:
                raise UserError(f"{path}: row {number + 1} has no path; write it, or leave the row out")

    def __len__(self) -> int:
        return len(self._paths)

    def file(self, number: int) -> bytes:
        path, address = self._paths[number], self.name(number)
        if "://" not in address:
            return read_file(Path(address), address)
        if "://" not in path:  # what leads out of the folder is refused
            return RemoteFile(self._table.storage, posixpath.normpath(path)).read()
        image = RemoteFile.at(address)
        if not self._table.storage.is_local and image.storage.is_local:
            raise UserError(f"{self._table}: names {address}, a file of this machine; download the table to read such")
        return image.read()

    def label(self, number: int) -> int:
        return self._labels[number]

    def name(self, number: int) -> str:
        path, folder = self._paths[number], self._table.storage
        if "://" in path:
            return path
        if folder.is_local:
            return posixpath.normpath(posixpath.join(folder.url, path))
        return f"{folder.url}/{posixpath.normpath(path)}"


def _read(table: RemoteFile) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows."""
    content = table.storage.read_bytes(table.name, most=MOST_RECORD_BYTES)
    try:
        text = content.decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first.count)
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row] or [[]]
    except (UnicodeError, csv.Error) as error:
        raise UserError(f"{table}: not a CSV file: {error}; save it as UTF-8 text") from None
    header = [name.strip() for name in header]
    if not rows:
        raise UserError(f"{table}: no rows; a CSV file has a line of column names, then one an image")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise UserError(f"{table}: row {number} has {len(row)} values for {len(header)} columns; correct it")
    return header, rows
