"""CIFAR-10 and CIFAR-100 as downloaded: Python or binary batches, in a folder or an archive."""

from __future__ import annotations

import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from distgan.bounds import check_regular
from distgan.data.sources.addresses import RemoteFile, is_local
from distgan.data.sources.base import Source
from distgan.data.sources.plain_pickle import PickledArray, load_plain_dict
from distgan.data.sources.waiting_images import WaitingImages
from distgan.data.tar import TARS, opened_tar
from distgan.errors import UserError
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import NotFoundError, Storage, translate_errors
from distgan.text import did_you_mean

SIDE = 32

IMAGE_BYTES = 3 * SIDE * SIDE  # red, green and blue plane, each row by row

_AGAIN = "get the file again"


@dataclass(frozen=True)
class Batch:
    """A file's images, uint8 (N, 3072), and labels, int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Form(ABC):
    """One of the four downloads.

    Attributes:
        folder: the folder inside its archive.
        train, test: names of the files with images.
        names: the file with the class names, by the kind of label; the first kind is the default.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: dict[str, str]

    @abstractmethod
    def read_names(self, file: BinaryIO, where: str, kind: str) -> list[str]:
        """The class names of a kind of label. Raises UserError, naming the file as `where`, if there are none."""

    @abstractmethod
    def read_batch(self, file: BinaryIO, where: str, kind: str) -> Batch:
        """A batch. Raises UserError, naming the file as `where`, if it is truncated or no batch."""


@dataclass(frozen=True)
class PythonForm(Form):
    """Pickled dicts: `data` has the images, and each kind of label a list."""

    names_key: dict[str, str]
    labels_key: dict[str, str]

    def read_names(self, file: BinaryIO, where: str, kind: str) -> list[str]:
        names = load_plain_dict(file, where).get(self.names_key[kind])
        if not isinstance(names, list) or not names:
            raise UserError(f"{where}: has no list {self.names_key[kind]!r}; {_AGAIN}")
        return [_text(name, where) for name in names]

    def read_batch(self, file: BinaryIO, where: str, kind: str) -> Batch:
        content = load_plain_dict(file, where)
        images, labels = content.get("data"), content.get(self.labels_key[kind])
        try:
            if not isinstance(images, PickledArray):
                raise ValueError("not an array")
            pixels = images.unsigned_bytes().reshape(-1, IMAGE_BYTES)
            if not len(pixels):
                raise ValueError("an empty array")
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{where}: 'data' is not images of {IMAGE_BYTES} bytes: {error}; {_AGAIN}") from None
        if not isinstance(labels, list) or len(labels) != len(pixels) or not all(map(_is_label, labels)):
            raise UserError(
                f"{where}: {self.labels_key[kind]!r} is not a list of {len(pixels)} labels, one an image; {_AGAIN}"
            )
        return Batch(pixels, np.array(labels, np.int64))


@dataclass(frozen=True)
class BinaryForm(Form):
    """Records: a byte for each kind of label, then the image; class names are lines of text."""

    label_offset: dict[str, int]

    def read_names(self, file: BinaryIO, where: str, kind: str) -> list[str]:
        names = file.read().split()
        if not names:
            raise UserError(f"{where}: has no names of classes; {_AGAIN}")
        return [_text(name, where) for name in names]

    def read_batch(self, file: BinaryIO, where: str, kind: str) -> Batch:
        record = len(self.label_offset) + IMAGE_BYTES
        content = np.frombuffer(file.read(), np.uint8)
        if not len(content) or len(content) % record:
            raise UserError(f"{where}: its {len(content):,} bytes are not whole records of {record:,}; {_AGAIN}")
        records = content.reshape(-1, record)
        return Batch(records[:, len(self.label_offset) :], records[:, self.label_offset[kind]].astype(np.int64))


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= 0xFF


def _text(name: object, where: str) -> str:
    try:
        text = name.decode() if isinstance(name, bytes) else name
    except UnicodeDecodeError:
        text = None
    if not isinstance(text, str) or not text.isprintable() or not text:
        raise UserError(f"{where}: a class has a name that is not text; {_AGAIN}")
    return text


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

FORMS: tuple[Form, ...] = (
    PythonForm(
        folder="cifar-10-batches-py",
        train=_BATCHES,
        test=("test_batch",),
        names={"class": "batches.meta"},
        names_key={"class": "label_names"},
        labels_key={"class": "labels"},
    ),
    PythonForm(
        folder="cifar-100-python",
        train=("train",),
        test=("test",),
        names={"fine": "meta", "coarse": "meta"},
        names_key={"fine": "fine_label_names", "coarse": "coarse_label_names"},
        labels_key={"fine": "fine_labels", "coarse": "coarse_labels"},
    ),
    BinaryForm(
        folder="cifar-10-batches-bin",
        train=tuple(f"{name}.bin" for name in _BATCHES),
        test=("test_batch.bin",),
        names={"class": "batches.meta.txt"},
        label_offset={"class": 0},
    ),
    BinaryForm(
        folder="cifar-100-binary",
        train=("train.bin",),
        test=("test.bin",),
        names={"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt"},
        label_offset={"coarse": 0, "fine": 1},
    ),
)

_MOST_BYTES = 2**28  # of one file; the largest has 156 million

_MOST_UNPACKED_BYTES = 2**30  # of an archive; the largest has 187 million

_NO_TAR = (tarfile.TarError, ArithmeticError, LookupError, ValueError, OSError, EOFError, RecursionError)

_GIVE = "give the folder or the .tar.gz of CIFAR-10 or CIFAR-100 as downloaded"


class CifarSource(Source):
    """The 32x32 color images of a `split`, in the order of the batches.

    `path` is the folder of the batches, its parent, or the archive (`.tar.gz`), local or at a URL. CIFAR-100 has 100
    fine classes, or with `label` "coarse" 20 coarse ones.

    One batch at a time is in memory. The images wait in a temporary file (3 KiB an image) that is deleted with the
    source.
    """

    def __init__(self, path: str, label: Sequence[str] = (), split: Literal["train", "test", "all"] = "train") -> None:
        """Raises UserError for a missing or damaged file, and for a pickle with more than plain data."""
        self._path, self._pixels = Storage.open(path).url, WaitingImages()
        labels = []
        with _folder_of_batches(path) as folder:
            form = _form_of(folder, path)
            kind = _kind_of(form, label)
            with _opened(folder, form.names[kind], path) as file:
                self.classes = form.read_names(file, f"{path}: {form.names[kind]}", kind)
            for name in {"train": form.train, "test": form.test, "all": form.train + form.test}[split]:
                with _opened(folder, name, path) as file:
                    batch = form.read_batch(file, f"{path}: {name}", kind)
                if batch.labels.max() >= len(self.classes):
                    raise UserError(
                        f"{path}: {name} has the label {batch.labels.max()}, but {form.names[kind]} names "
                        f"{len(self.classes)} classes; get the download again"
                    )
                self._pixels.extend(image.tobytes() for image in batch.images)
                labels.append(batch.labels)
        self._labels = np.concatenate(labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        planes = np.frombuffer(self._pixels[number], np.uint8).reshape(3, SIDE, SIDE)
        return planes.transpose(1, 2, 0), int(self._labels[number])

    def name(self, number: int) -> str:
        return f"{self._path}: image {number}"


@contextmanager
def _folder_of_batches(path: str) -> Iterator[Path]:
    """The folder of the batches; those of an archive or of a folder at a URL are written into a temporary one."""
    if not is_local(path):
        with temporary_folder() as folder:
            if path.endswith(TARS):
                _unpack(path, folder)
            else:
                _copy(Storage.open(path), folder)
            yield folder
        return
    root = Path(path)
    with translate_errors(path):
        if not root.is_dir():
            check_regular(root)
        inside = [form.folder for form in FORMS if (root / form.folder).is_dir()]
    _check_one(inside, path)
    if inside or root.is_dir():
        yield root / inside[0] if inside else root
        return
    with temporary_folder() as folder:
        _unpack(path, folder)
        yield folder


def _check_one(folders: Sequence[str], path: str) -> None:
    if len(folders) > 1:
        raise UserError(f"{path}: holds {' and '.join(folders)}; give one of them")


def _copy(root: Storage, folder: Path) -> None:
    """Copies the files of a form from a URL, that of their folder or its parent."""
    inside = [form for form in FORMS if any(root.child(form.folder).exists(name) for name in form.names.values())]
    _check_one([form.folder for form in inside], root.url)
    source = root.child(inside[0].folder) if inside else root
    for form in inside or FORMS:
        if not any(source.exists(name) for name in form.names.values()):
            continue
        for name in {*form.names.values(), *form.train, *form.test}:
            with suppress(NotFoundError):  # which is told where it is asked for
                RemoteFile(source, name).copy_to(folder / name, _MOST_BYTES)
        return


def _unpack(path: str, folder: Path) -> None:
    """Writes those files of the archive that a form names into the folder."""
    wanted = {name for form in FORMS for name in (*form.train, *form.test, *form.names.values())}
    try:
        with (
            translate_errors(path),
            RemoteFile.at(path).on_disk(_MOST_UNPACKED_BYTES) as local,
            opened_tar(local, path, _MOST_UNPACKED_BYTES) as archive,
        ):
            for member in archive:
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if name in wanted and member.isreg() else None
                if content is None:
                    continue
                _check_size(member.size, f"{path}: {name}")
                with translate_errors(str(folder)), (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except _NO_TAR as error:
        raise UserError(f"{path}: not a whole tar file: {error}; {_GIVE}") from None


def _form_of(folder: Path, path: str) -> Form:
    for form in FORMS:
        if any((folder / name).is_file() for name in form.names.values()):
            return form
    known = sorted({name for form in FORMS for name in form.names.values()})
    raise UserError(f"{path}: has none of {', '.join(known)}; {_GIVE}")


def _kind_of(form: Form, label: Sequence[str]) -> str:
    kinds = list(form.names)
    if not label:
        return kinds[0]
    if len(kinds) == 1:
        raise UserError(f"--label {label[0]}: CIFAR-10 has labels of one kind; leave --label out")
    if len(label) > 1:
        raise UserError(f"--label is given {len(label)} times; CIFAR-100's labels are either fine or coarse")
    if label[0] not in kinds:
        raise UserError(f"--label {label[0]}: no such labels in CIFAR-100{did_you_mean(label[0], kinds)}")
    return label[0]


def _opened(folder: Path, name: str, path: str) -> BinaryIO:
    """Opens a file. Raises UserError if it is missing, or far larger than CIFAR's."""
    where = f"{path}: {name}"
    if not (folder / name).is_file():
        raise UserError(f"{where}: not there; get the download again")
    with translate_errors(where):
        _check_size((folder / name).stat().st_size, where)
        return (folder / name).open("rb")


def _check_size(size: int, where: str) -> None:
    if size > _MOST_BYTES:
        raise UserError(f"{where}: has {size:,} bytes, more than any file of CIFAR; {_GIVE}")
