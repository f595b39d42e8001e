"""CelebA as downloaded from its site or from Kaggle: aligned faces, with attributes as classes if wanted."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath

import numpy as np

from distgan.data.files import HIDDEN, is_hidden, is_system, kind_of_file, walk_files
from distgan.data.images import SUFFIXES
from distgan.data.sources.addresses import RemoteFile, is_local
from distgan.data.sources.file_bytes import FileBytes
from distgan.data.sources.image_files import FileSource, read_file
from distgan.data.sources.zip_files import ZipFiles, opened_zip
from distgan.errors import UserError
from distgan.storage.storage import Storage, translate_errors
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
    or a zip file with the folder `img_align_celeba` inside, such as Kaggle's; local, or at a URL. The list of
    attributes is searched there, beside it, in `Anno` and in the zip file; only labels need it.

    `label` names attributes. One attribute gives the classes 0 (not) and 1 (has); several give their product, the
    first one counting most. Without `label` there are no labels.
    """

    def __init__(self, path: str, label: Sequence[str] = ()) -> None:
        """Raises UserError if images or list are missing, or do not belong together."""
        place = _find_images(path)
        self._images = _ZippedFaces(place) if isinstance(place, FileBytes) else _FacesInFolder(place)
        self.left_out = self._images.left_out
        names = self._images.names
        if not names:
            raise UserError(f"{place}: no images in {_IMAGES}; give CelebA's folder or {_IMAGES}.zip as downloaded")
        self.classes: list[str] = []
        self._labels = np.full(len(names), -1, np.int64)
        if label:
            text, where = _attribute_list(path, place)
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


class _FacesInFolder:
    """The image files directly in a folder, ordered by name; `left_out` counts the others, by reason."""

    def __init__(self, folder: str) -> None:
        self._folder, self._storage, path = folder.rstrip("/"), Storage.open(folder), Path(folder)
        if is_local(folder):
            files, self.left_out = walk_files(path, below=False)
            found = [file.name for file in files]
        else:
            listed = self._storage.list()
            found = [name for name in listed if not is_hidden(name)]
            self.left_out = +Counter({HIDDEN: len(listed) - len(found)})
        self.names = list(filter(_is_image, found))
        self.left_out += Counter(kind_of_file(name) for name in found if not _is_image(name))

    def location(self, number: int) -> str:
        return f"{self._folder}/{self.names[number]}"

    def read(self, number: int) -> bytes:
        if self._storage.is_local:
            return read_file(Path(self.location(number)), self.location(number))
        return RemoteFile(self._storage, self.names[number]).read()


class _ZippedFaces(ZipFiles):
    """The image files in the folders called `img_align_celeba` inside a zip file; `left_out` as of a folder."""

    def __init__(self, file: FileBytes) -> None:
        with opened_zip(file) as archive:
            inside = [(info.filename.rpartition("/")[2], info) for info in archive.infolist() if _lies_there(info)]
        super().__init__(file, [member for member in inside if _is_image(member[0])])
        others = [name for name, _ in inside if not _is_image(name)]
        self.left_out = Counter(HIDDEN if is_hidden(name) else kind_of_file(name) for name in others)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not is_hidden(name)


def _lies_there(info: zipfile.ZipInfo) -> bool:
    *folders, name = info.filename.split("/")
    return folders[-1:] == [_IMAGES] and name != "" and not any(map(is_system, folders))


def _find_images(path: str) -> str | FileBytes:
    """The folder of images, or the zip file that contains it."""
    if is_local(path):
        with translate_errors(path):
            if Path(path).is_file():
                return FileBytes(RemoteFile.at(path), path)
            if not Path(path).is_dir():
                raise UserError(f"{path}: no such file or folder; give CelebA's folder or {_IMAGES}.zip as downloaded")
    elif path.endswith(".zip"):
        return FileBytes(RemoteFile.at(path), path)
    root, base = Storage.open(path), path.rstrip("/") or "/"
    for folder, address in ((root, base), (root.child("Img"), f"{base}/Img")):
        names = _folder_names(folder)
        if _IMAGES in names:
            # Kaggle's folder contains another one of the same name.
            is_double = _IMAGES in _folder_names(folder.child(_IMAGES))
            return f"{address}/{_IMAGES}/{_IMAGES}" if is_double else f"{address}/{_IMAGES}"
        if f"{_IMAGES}.zip" in names:
            return FileBytes(RemoteFile(folder, f"{_IMAGES}.zip"), f"{address}/{_IMAGES}.zip")
    return path


def _folder_names(folder: Storage) -> list[str]:
    """The names in a folder; of a local folder all folders, and files that can be opened."""
    path = folder.local_path
    with translate_errors(folder.url):
        return folder.list() if path is None or path.is_dir() else []


def _attribute_list(path: str, images: str | FileBytes) -> tuple[str, str]:
    """The text of the list of attributes, and its name for messages."""
    for folder in _folders_of_lists(path):
        for name in _LISTS:
            file = RemoteFile.at(f"{folder}/{name}")
            where = f"{folder}/{name}"
            with translate_errors(where):
                content = file.read_if_there(_MOST_LIST_BYTES)
            if content is not None:
                return _decoded(content, where)
    if isinstance(images, FileBytes):
        with opened_zip(images) as archive:
            for info in archive.infolist():
                if PurePosixPath(info.filename).name in _LISTS and info.file_size <= _MOST_LIST_BYTES:
                    return _decoded(archive.read(info), f"{images}: {info.filename}")
    raise UserError(f"{path}: no {' or '.join(_LISTS)} there or beside it, which --label needs; put it there")


def _folders_of_lists(path: str) -> list[str]:
    """Where the list of attributes may lie: in the folder, beside it, or in `Anno` of one of the two."""
    base = path.rstrip("/") or "/"
    is_file = Path(path).is_file() if is_local(path) else path.endswith(".zip")
    parent, slash, name = base.rpartition("/")
    if is_local(path):
        parent = str(Path(base).parent)
    if is_file or name == _IMAGES:
        base, (parent, slash, _) = parent, parent.rpartition("/")
        if is_local(path):
            parent = str(Path(base).parent)
    places = [base, f"{base}/Anno"]
    if is_local(path) or (slash and not parent.endswith(("/", ":"))):  # a bucket and a host have no folder above
        places += [parent, f"{parent}/Anno"]
    return places


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
