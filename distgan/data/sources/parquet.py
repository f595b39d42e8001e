"""Parquet files with a column of image files, such as the data sets of the Hugging Face hub."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from distgan.bounds import check_unpacked, parse_json
from distgan.data.labels import MAX_LABEL
from distgan.data.sources.addresses import RemoteFile, files_at
from distgan.data.sources.base import check_class, named_classes
from distgan.data.sources.columns import pick_column
from distgan.data.sources.image_files import MOST_FILE_BYTES, FileSource
from distgan.data.sources.waiting_images import WaitingImages
from distgan.errors import UserError
from distgan.storage.storage import translate_errors

_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp")

_LABELS = ("label", "labels", "class", "cls")

_SPLIT = re.compile(r"(train|test|val|valid|validation|dev)(?=[-_.])", re.IGNORECASE)

_ROWS = 16  # in memory at once

_BUFFER_BYTES = 2**20

_MOST_ROWS = 10**8

_MOST_BYTES = 2**50  # of all images


class ParquetSource(FileSource):
    """The rows of one or several Parquet files, in the order of the files' names.

    `path` is a file, a folder, or a pattern of file names, local or a URL. Of a folder with the files of several splits
    (`train-00000-of-00002.parquet`, as in the hub), it reads `train` or the given `split`.

    The images are a column of bytes, or of structs with a field `bytes`. Labels are text, or numbers from 0, named by
    the hub's `ClassLabel` if it has them; null, −1 and "" are none.

    A few rows at a time are in memory. The images wait in a temporary file, as large as they are, that is deleted with
    the source.
    """

    def __init__(
        self,
        path: str,
        image_column: str | None = None,
        label_column: str | None = None,
        split: Literal["train", "test", "all"] | None = None,
    ) -> None:
        """Raises UserError for a missing or damaged file, and for columns that are missing or ambiguous."""
        self._images = WaitingImages()
        files = files_at(path, ".parquet")
        self._files = _of_split(files, split, path)
        if len(self._files) < len(files):
            self.left_out = {"of other splits": len(files) - len(self._files)}
        self._starts: list[int] = []
        labels: list[Any] = []
        kinds: list[_LabelKind] = []
        for file in self._files:
            self._starts.append(len(self._images))
            with file.on_disk() as local, _opened(local, str(file)) as opened:
                columns = _Columns(opened.schema_arrow, str(file), image_column, label_column)
                labels += _read(opened, columns, self._images, local.stat().st_size, str(file))
                kinds.append(columns.label_kind)
            if kinds[-1] != kinds[0]:
                raise UserError(
                    f"{file}: has other labels than {self._files[0]} (their kind or names); give one of them"
                )
        if not len(self._images):
            raise UserError(f"{path}: no rows in it")
        self.classes, self._labels = _classes(labels, kinds[0], path)

    def __len__(self) -> int:
        return len(self._labels)

    def file(self, number: int) -> bytes:
        data = self._images[number]
        if not data:
            raise UserError(f"{self.name(number)}: its image has no bytes; --format csv reads a table of paths")
        return data

    def label(self, number: int) -> int:
        return self._labels[number]

    def name(self, number: int) -> str:
        place = bisect_right(self._starts, number) - 1
        return f"{self._files[place]}: row {number - self._starts[place]}"


# How labels are written: as text, as numbers, or as numbers with these names; None for no labels.
_LabelKind = Literal["text", "number"] | tuple[str, ...] | None


class _Columns:
    """The columns of images and labels in a file's schema, and the kind of the labels."""

    def __init__(self, schema: pa.Schema, where: str, image: str | None, label: str | None) -> None:
        features = _hub_features(schema)
        images = _of_hub_type(features, "Image") or [field.name for field in schema if _holds_bytes(field.type)]
        found = pick_column("--image-column", image, schema.names, images, _IMAGES, where)
        if found is None:
            raise UserError(f"{where}: no column of image files (bytes), but {_described(schema)}")
        if not _holds_bytes(schema.field(found).type):
            raise UserError(f"{where}: --image-column {found}: is {schema.field(found).type}, not bytes; {_OTHER}")
        self.image = found
        labels = _of_hub_type(features, "ClassLabel") or [
            field.name for field in schema if field.name.lower() in _LABELS and _type_kind(field.type)
        ]
        self.label = pick_column("--label-column", label, schema.names, labels, (), where)
        self.label_kind: _LabelKind = None
        if self.label is not None:
            kind = _type_kind(schema.field(self.label).type)
            if kind is None:
                raise UserError(
                    f"{where}: --label-column {self.label}: is {schema.field(self.label).type}, not text or whole "
                    f"numbers; {_OTHER}"
                )
            names = features.get(self.label, {}).get("names") if kind == "number" else None
            is_text = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
            self.label_kind = tuple(names) if is_text else kind  # type: ignore[arg-type]


_OTHER = "choose another column"


def _described(schema: pa.Schema) -> str:
    shown = ", ".join(f"{field.name} ({field.type!s:.40})" for field in list(schema)[:8])
    return f"{shown} and {len(schema) - 8} more" if len(schema) > 8 else shown or "nothing"


def _hub_features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the hub's library wrote about each column; empty if there is nothing, or something else."""
    try:
        found = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:
        return {}
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return {}
    return {name: one for name, one in found.items() if name in schema.names and isinstance(one, dict)}


def _of_hub_type(features: dict[str, dict[str, Any]], kind: str) -> list[str]:
    return [name for name, feature in features.items() if feature.get("_type") == kind]


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column has bytes, or structs with a field `bytes` of them."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _type_kind(kind: pa.DataType) -> Literal["text", "number"] | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "number" if pa.types.is_integer(kind) else None


@contextmanager
def _opened(path: Path, where: str) -> Iterator[parquet.ParquetFile]:
    """Opens a file. Raises UserError for whatever pyarrow raises, then or in the block."""
    try:
        with parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            if file.metadata.num_rows > _MOST_ROWS:
                raise UserError(f"{where}: has {file.metadata.num_rows:,} rows, more than {_MOST_ROWS:,}; split it")
            yield file
    except (pa.ArrowException, OSError, ValueError, LookupError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, and not what pyarrow finds in the file
            with translate_errors(where):
                raise
        raise UserError(f"{where}: not a whole Parquet file: {_first_line(error)}; get it again") from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{lines[0]:.150}" if lines else type(error).__name__


def _read(
    file: parquet.ParquetFile, columns: _Columns, images: WaitingImages, packed: int, where: str
) -> Iterator[int | str | None]:
    """Moves the images of a file of `packed` bytes to `images`, and gives the labels."""
    before, first = images.size, len(images)
    wanted = [columns.image] if columns.label is None else [columns.image, columns.label]
    for batch in file.iter_batches(batch_size=_ROWS, columns=wanted, use_threads=False):
        column = batch.column(columns.image)
        if pa.types.is_struct(column.type):
            column = column.flatten()[column.type.get_field_index("bytes")]
        found = [value or b"" for value in column.to_pylist()]
        for row, data in enumerate(found, len(images) - first):
            if len(data) > MOST_FILE_BYTES:
                raise UserError(f"{where}: row {row}: {len(data):,} bytes, more than {MOST_FILE_BYTES:,}; leave it out")
        images.extend(found)
        check_unpacked(where, packed, images.size - before, _MOST_BYTES)
        for label in [None] * len(found) if columns.label is None else batch.column(columns.label).to_pylist():
            if isinstance(label, str):
                check_class(label, where)
            yield label


def _classes(labels: Sequence[Any], kind: _LabelKind, path: str) -> tuple[list[str], list[int]]:
    """The classes, and the label of each row."""
    if kind is None:
        return [], [-1] * len(labels)
    if kind == "text":
        return named_classes([label or "" for label in labels], path)
    numbers = [-1 if label is None else label for label in labels]
    lowest, highest = min(numbers), max(numbers)
    names = [str(number) for number in range(min(highest, MAX_LABEL) + 1)] if kind == "number" else list(kind)
    if lowest < -1 or highest >= len(names):
        wrong = lowest if lowest < -1 else highest
        raise UserError(f"{path}: the label {wrong} is not a class from 0 to {len(names) - 1}; {_OTHER}")
    return names, numbers


def _of_split(files: list[RemoteFile], split: str | None, path: str) -> list[RemoteFile]:
    """The files of a split: by default `train`, if there are files of several splits; else all."""
    splits = [found[0].lower() if (found := _SPLIT.match(file.name)) else None for file in files]
    if split == "all" or (split is None and len({*splits} - {None}) < 2):
        return files
    wanted = [file for file, of in zip(files, splits, strict=True) if of == (split or "train")]
    if not wanted:
        names = ", ".join(sorted({of or "none" for of in splits}))
        raise UserError(f"{path}: no split {split or 'train'}, but {names}; give --split all, or a pattern of names")
    return wanted
