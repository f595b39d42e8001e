"""The files below a folder, at a URL, or inside a zip or tar file."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

from distgan.bounds import read_bytes
from distgan.data.files import HIDDEN, SPECIAL, is_hidden, walk_files
from distgan.data.sources.addresses import RemoteFile, is_local
from distgan.data.sources.file_bytes import FileBytes
from distgan.data.sources.image_files import MOST_FILE_BYTES, read_file
from distgan.data.sources.waiting_images import WaitingImages
from distgan.data.sources.zip_files import ZipFiles, opened_zip
from distgan.data.tar import TARS, each_file
from distgan.errors import UserError
from distgan.storage.storage import Storage, translate_errors

_ARCHIVES = (".zip", *TARS)


class Tree(Protocol):
    """Files by their path.

    Attributes:
        files: but hidden ones, in order.
        left_out: how many others there are, by reason; a hidden folder at a URL or in an archive counts as one.
    """

    files: list[PurePosixPath]
    left_out: Counter[str]

    def read(self, file: PurePosixPath) -> bytes:
        """The bytes of an image file. Raises UserError if they cannot be read."""
        ...

    def read_table(self, file: PurePosixPath, most: int) -> bytes:
        """The bytes of a file of at most `most`. Raises UserError for more."""
        ...

    def location(self, file: PurePosixPath) -> str:
        """The path or URL of a file, for messages."""
        ...


def tree_at(path: str, wanted: Callable[[PurePosixPath], bool]) -> Tree:
    """The files below a folder or inside a zip or tar file, local or at a URL; `wanted` are those that may be read.

    A folder inside an archive that holds all of its files is left out of their paths. Raises UserError for what cannot
    be read.
    """
    is_archive = path.lower().endswith(_ARCHIVES)
    if is_local(path):
        with translate_errors(path):
            is_archive = is_archive and not Path(path).is_dir()
    if not is_archive:
        return LocalTree(path) if is_local(path) else RemoteTree(path)
    return ZipTree(path, wanted) if path.lower().endswith(".zip") else TarTree(path, wanted)


class LocalTree:
    """The files below a folder of this machine; see `Tree`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        with translate_errors(path):
            if not self._path.is_dir():
                raise UserError(f"{path}: no such folder of images")
        files, self.left_out = walk_files(self._path)
        self.files = [PurePosixPath(file.relative_to(self._path)) for file in files]

    def read(self, file: PurePosixPath) -> bytes:
        return read_file(self._path / file, self.location(file))

    def read_table(self, file: PurePosixPath, most: int) -> bytes:
        with translate_errors(self.location(file)):
            return read_bytes(self._path / file, most)

    def location(self, file: PurePosixPath) -> str:
        return str(self._path / file)


class RemoteTree:
    """The files below a URL; see `Tree`."""

    def __init__(self, url: str) -> None:
        self._url, self._storage = url.rstrip("/"), Storage.open(url)
        found = self._storage.find()
        self.files, self.left_out = _visible(found)
        if not self.files:
            raise UserError(f"{self._storage.url}: no such folder of images; check the name")

    def read(self, file: PurePosixPath) -> bytes:
        return RemoteFile(self._storage, str(file)).read()

    def read_table(self, file: PurePosixPath, most: int) -> bytes:
        return self._storage.read_bytes(str(file), most=most)

    def location(self, file: PurePosixPath) -> str:
        return f"{self._url}/{file}"


class _ArchiveTree:
    """The files of an archive by number; `_names` are those that can be read, in order, as in the archive."""

    def __init__(self, path: str, names: Iterable[str]) -> None:
        self._path = path
        files, self.left_out = _visible(names)
        parts = {file.parts[0] if len(file.parts) > 1 else "" for file in files}
        self._prefix = f"{parts.pop()}/" if len(parts) == 1 and "" not in parts else ""
        self.files = [PurePosixPath(str(file)[len(self._prefix) :]) for file in files]
        self._names: list[str] = []

    def location(self, file: PurePosixPath) -> str:
        return f"{self._path}: {self._prefix}{file}"

    def _number(self, file: PurePosixPath) -> int:
        return bisect_left(self._names, f"{self._prefix}{file}")


class ZipTree(_ArchiveTree):
    """The files inside a zip file; see `Tree`."""

    def __init__(self, path: str, wanted: Callable[[PurePosixPath], bool]) -> None:
        file = FileBytes(RemoteFile.at(path), path)
        with opened_zip(file) as archive:
            members = [(_plain(info.filename), info) for info in archive.infolist() if not info.is_dir()]
        super().__init__(path, [name for name, _ in members])
        read = {f"{self._prefix}{each}" for each in self.files if wanted(each)}
        self._zip = ZipFiles(file, [member for member in members if member[0] in read])
        self._names = self._zip.names

    def read(self, file: PurePosixPath) -> bytes:
        return self._zip.read(self._number(file))

    def read_table(self, file: PurePosixPath, most: int) -> bytes:
        return self.read(file)


class TarTree(_ArchiveTree):
    """The files inside a tar file, plain or compressed, which wait in a temporary file; see `Tree`."""

    def __init__(self, path: str, wanted: Callable[[PurePosixPath], bool]) -> None:
        names, special, self._waiting = dict[str, int](), 0, WaitingImages()
        all_names = []

        def is_wanted(name: str) -> bool:
            file = PurePosixPath(_plain(name))
            return wanted(file) and not any(map(is_hidden, file.parts))

        with RemoteFile.at(path).on_disk() as local, translate_errors(path):
            for given, is_file, data in each_file(local, path, is_wanted, MOST_FILE_BYTES):
                name = _plain(given)
                special += not is_file
                if is_file:
                    all_names.append(name)
                if is_file and is_wanted(name):
                    names[name] = len(self._waiting)
                    self._waiting.extend([data])
        if any(name.endswith(".cls") for name in all_names):
            raise UserError(f"{path}: a WebDataset shard, whose labels are .cls files; use --format webdataset")
        super().__init__(path, dict.fromkeys(all_names))
        self.left_out += Counter({SPECIAL: special})
        self._names = sorted(names)
        self._numbers = [names[name] for name in self._names]

    def read(self, file: PurePosixPath) -> bytes:
        return self._waiting[self._numbers[self._number(file)]]

    def read_table(self, file: PurePosixPath, most: int) -> bytes:
        return self.read(file)


def _plain(name: str) -> str:
    """A member's name without `./` and the like."""
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def _visible(names: Iterable[str]) -> tuple[list[PurePosixPath], Counter[str]]:
    """The paths that are not hidden, in order, and how many are; a hidden folder counts as one."""
    files: list[PurePosixPath] = []
    hidden = set()
    for name in map(PurePosixPath, names):
        first = next((place for place, part in enumerate(name.parts) if is_hidden(part)), None)
        if first is None:
            files.append(name)
        else:
            hidden.add(name.parts[: first + 1])
    return sorted(files), Counter({HIDDEN: len(hidden)})
