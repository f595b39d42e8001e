"""CelebA as downloaded from its site or from Kaggle: aligned faces, with attributes as classes if wanted."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath

import numpy as np

from distgan.bounds import read_bytes
from distgan.data.sources.image_files import FileSource, FolderImages, ImageFiles, ZipImages, opened_zip
from distgan.errors import UserError
from distgan.storage.storage import translate_errors
from distgan.text import did_you_mean

_VALUES = {"-1": 0, "0": 0, "1": 1}

_MOST_ATTRIBUTES = 12  # 4,096 classes

_AGAIN = "get it again"


def attribute_classes(attributes: Sequence[str]) -> list[str]:
    """Class names of a product of attributes, as "not Blond_Hair, Smiling"; the first one is the highest bit."""
    choices = [(f"not {name}", name) for name in attributes]
    return [", ".join(chosen) for chosen in itertools.product(*choices)]


def read_attributes(lines: Iterable[str], where: str, wanted: Sequence[str]) -> dict[str, int]:
    """The class of each image by its name: an index into `attribute_classes(wanted)`.

    Raises UserError, naming the list as `where` and the line, for another kind of file, and for unknown attributes.
    """
    numbered = ((number, _split(line)) for number, line in enumerate(lines, 1) if line.strip())
    count, names = _head(numbered, where)
    columns = _columns(names, where, wanted)
    classes: dict[str, int] = {}
    for number, (image, *values) in numbered:
        if len(values) != len(names):
            raise UserError(
                f"{where}: line {number}: {image} has {len(values)} values for {len(names)} attributes; {_AGAIN}"
            )
        if image in classes:
            raise UserError(f"{where}: line {number}: {image} is in the list twice; {_AGAIN}")
        classes[image] = 0
        for column in columns:
            if values[column] not in _VALUES:
                found = f"{names[column]} is {values[column]:.20}"
                raise UserError(f"{where}: line {number}: {image}: {found}, not 1 or -1; {_AGAIN}")
            classes[image] = 2 * classes[image] + _VALUES[values[column]]
    if count is not None and len(classes) != count:
        raise UserError(f"{where}: has {len(classes):,} rows where its first line announces {count:,}; {_AGAIN}")
    return classes


def _split(line: str) -> list[str]:
    return [word.strip() for word in line.split(",")] if "," in line else line.split()


def _head(lines: Iterator[tuple[int, list[str]]], where: str) -> tuple[int | None, list[str]]:
    """The number of images (None in Kaggle's format) and the attributes' names."""
    _, first = next(lines, (0, [""]))
    if first[0] == "image_id":
        return None, first[1:]
    _, names = next(lines, (0, []))
    if len(first) != 1 or not first[0].isdecimal() or len(first[0]) > 9 or not names:
        raise UserError(
            f"{where}: not CelebA's list of attributes, whose first line is a count or starts with image_id"
        )
    return int(first[0]), names


def _columns(names: list[str], where: str, wanted: Sequence[str]) -> list[int]:
    if len(wanted) > _MOST_ATTRIBUTES:
        raise UserError(f"--label is given {len(wanted)} times; more than {_MOST_ATTRIBUTES} attributes are too many")
    for place, name in enumerate(wanted):
        if name not in names:
            raise UserError(f"--label {name}: no such attribute in {where}{did_you_mean(name, names)}")
        if name in wanted[:place]:
            raise UserError(f"--label {name} is given twice; give each attribute once")
    return [names.index(name) for name in wanted]


_IMAGES = "img_align_celeba"

_LISTS = ("list_attr_celeba.txt", "list_attr_celeba.csv")

_MOST_LIST_BYTES = 2**28


class CelebaSource(FileSource):
    """The 178x218 color faces of CelebA, ordered by name.

    `path` is a folder with `img_align_celeba` or `img_align_celeba.zip` (also in `Img`), one of these two themselves,
    or a zip file with the folder `img_align_celeba` inside, such as Kaggle's. The list of attributes is searched there,
    beside it, in `Anno` and in the zip file; only labels need it.

    `label` names attributes. One attribute gives the classes 0 (not) and 1 (has); several give their product, the
    first one counting most. Without `label` there are no labels.
    """

    def __init__(self, path: str, label: Sequence[str] = ()) -> None:
        """Raises UserError if images or list are missing, or do not belong together."""
        root = Path(path)
        with translate_errors(path):
            place = _find_images(root)
            self._images: ImageFiles = ZipImages(place, _IMAGES) if place.is_file() else FolderImages(place)
        self.left_out = self._images.left_out
        names = self._images.names
        if not names:
            raise UserError(f"{place}: no images in {_IMAGES}; give CelebA's folder or {_IMAGES}.zip as downloaded")
        self.classes: list[str] = []
        self._labels = np.full(len(names), -1, np.int64)
        if label:
            text, where = _attribute_list(root, place)
            by_name = read_attributes(io.StringIO(text), where, label)
            _check_same(set(names), by_name.keys(), str(place), where)
            self.classes = attribute_classes(label)
            self._labels = np.array([by_name[name] for name in names], np.int64)

    def __len__(self) -> int:
        return len(self._labels)

    def file(self, number: int) -> bytes:
        return self._images.read(number)

    def label(self, number: int) -> int:
        return int(self._labels[number])

    def name(self, number: int) -> str:
        return self._images.location(number)


def _find_images(root: Path) -> Path:
    """The folder of images, or the zip file that contains it."""
    if root.is_file():
        return root
    if not root.is_dir():
        raise UserError(f"{root}: no such file or folder; give CelebA's folder or {_IMAGES}.zip as downloaded")
    for parent in (root, root / "Img"):
        # Kaggle's folder contains another one of the same name.
        for place in (parent / _IMAGES / _IMAGES, parent / _IMAGES):
            if place.is_dir():
                return place
        if (parent / f"{_IMAGES}.zip").is_file():
            return parent / f"{_IMAGES}.zip"
    return root


def _attribute_list(root: Path, images: Path) -> tuple[str, str]:
    """The text of the list of attributes, and its name for messages."""
    base = root.parent if root.is_file() or root.name == _IMAGES else root
    for folder in (base, base / "Anno", base.parent, base.parent / "Anno"):
        for name in _LISTS:
            if (folder / name).is_file():
                with translate_errors(str(folder / name)):
                    return _decoded(read_bytes(folder / name, _MOST_LIST_BYTES), str(folder / name))
    if images.is_file():
        with opened_zip(images) as archive:
            for info in archive.infolist():
                if PurePosixPath(info.filename).name in _LISTS and info.file_size <= _MOST_LIST_BYTES:
                    return _decoded(archive.read(info), f"{images}: {info.filename}")
    raise UserError(f"{root}: no {' or '.join(_LISTS)} there or beside it, which --label needs; put it there")


def _decoded(content: bytes, where: str) -> tuple[str, str]:
    try:
        return content.decode("utf-8-sig"), where
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8 text; get it again") from None


def _check_same(images: AbstractSet[str], rows: AbstractSet[str], place: str, where: str) -> None:
    """Raises UserError unless folder and list have the same images."""
    for missing, lacking, other, remedy in (
        (images - rows, where, place, "get the list again, or remove such images"),
        (rows - images, place, where, "unpack the images again, or remove such rows from the list"),
    ):
        if missing:
            raise UserError(
                f"{lacking}: has no {min(missing)}, which {other} has ({len(missing):,} such in all); {remedy}"
            )
