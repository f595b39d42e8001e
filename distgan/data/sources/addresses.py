"""Files of a source by their address: a path, or a URL of whatever fsspec knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from distgan.data.files import is_hidden
from distgan.data.sources.image_files import MOST_FILE_BYTES
from distgan.errors import UserError
from distgan.storage.local_files import temporary_folder
from distgan.storage.retry import Retry
from distgan.storage.storage import NotFoundError, Storage, translate_errors
from distgan.storage.urls import LOCAL_PROTOCOLS, WEB_PROTOCOLS, plain_name, split_url

_MOST_SUB_FOLDERS = 32

_retry = Retry(wait_s=60)


@dataclass(frozen=True)
class RemoteFile:
    """A file in a storage, which may be a local folder."""

    storage: Storage
    name: str

    @classmethod
    def at(cls, address: str) -> RemoteFile:
        """The file at an address. Raises UserError for what is no address of a file."""
        protocol, _ = split_url(address)
        if protocol in LOCAL_PROTOCOLS:
            path = Path(Storage.open(address).root)
            return cls(Storage.open(str(path.parent)), path.name)
        if protocol in WEB_PROTOCOLS and "?" in address:
            raise UserError(f"{address}: a query (?…) cannot be read; leave it out, or download the file")
        folder, _, name = address.rstrip("/").rpartition("/")
        if folder.endswith(("/", ":")):
            raise UserError(f"{address}: not the address of a file; add its name")
        return cls(Storage.open(folder), plain_name(name, protocol))

    def __str__(self) -> str:
        return f"{self.storage.url.rstrip('/')}/{self.name}"

    def read(self) -> bytes:
        """The bytes of an image file; a server that fails is tried again for a minute.

        Raises UnavailableError if it goes on failing, and UserError as `Storage.read_bytes`.
        """
        return _retry(lambda: self.storage.read_bytes(self.name, most=MOST_FILE_BYTES))

    def read_if_there(self, most: int) -> bytes | None:
        """The bytes of a file of at most `most`; None where there is none."""
        try:
            return self.storage.read_bytes(self.name, most=most)
        except NotFoundError:
            return None

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes `[start, end)`; fewer if the file ends before. A server that fails is tried again, as in `read`."""
        return _retry(lambda: self.storage.read_range(self.name, start, end))

    def copy_to(self, path: Path, most: int | None = None) -> None:
        """Copies the file to the disk. Raises UserError for more than `most` bytes."""
        self.storage.download(self.name, path, most=most)

    @contextmanager
    def on_disk(self, most: int | None = None) -> Iterator[Path]:
        """The file on the disk: itself, or a copy of at most `most` bytes that is removed at the end."""
        if self.storage.local_path is not None:
            yield self.storage.local_path / self.name
            return
        with temporary_folder() as folder:
            self.copy_to(folder / "file", most)
            yield folder / "file"


def is_local(address: str) -> bool:
    """Whether an address is a path, and no URL of a store or a server."""
    return split_url(address)[0] in LOCAL_PROTOCOLS


def files_at(address: str, suffix: str) -> list[RemoteFile]:
    """The files with a suffix at an address, ordered by name.

    An address is a file, a folder, or a pattern of file names (`data/train-*.parquet`). A folder without such files
    stands for its only sub-folder that has some.

    Raises UserError if there are none, or if several sub-folders have some.
    """
    protocol, _ = split_url(address)
    head, _, name = address.rstrip("/").rpartition("/")
    is_pattern = re.search(r"[*?\[]", name) is not None
    if protocol in LOCAL_PROTOCOLS:
        path = Path(Storage.open(address).root)
        with translate_errors(address):
            is_pattern = is_pattern and not path.exists()
            if path.is_file() or (address.endswith(suffix) and not path.is_dir() and not is_pattern):
                return [RemoteFile.at(address)]
    elif address.endswith(suffix) and not is_pattern:
        return [RemoteFile.at(address)]
    if is_pattern:
        folder = Storage.open(head or ("/" if address.startswith("/") else "."))
        pattern = plain_name(name, protocol)
        found = [RemoteFile(folder, each) for each in folder.list() if fnmatchcase(each, pattern)]
    else:
        folder = Storage.open(address)
        folder.require()
        found = _in_folder(folder, suffix)
    if not found:
        raise UserError(f"{address}: no {suffix} files there")
    return found


def _in_folder(folder: Storage, suffix: str) -> list[RemoteFile]:
    names = [name for name in folder.list() if not is_hidden(name)]
    found = _with_suffix(folder, names, suffix)
    if found:
        return found
    places = [folder.child(name) for name in names if "." not in name][:_MOST_SUB_FOLDERS]
    by_place = {place.url: _with_suffix(place, _listed(place), suffix) for place in places}
    inside = [place for place, files in by_place.items() if files]
    if len(inside) > 1:
        raise UserError(f"{folder.url}: {suffix} files are in several folders; give one of them: {', '.join(inside)}")
    return by_place[inside[0]] if inside else []


def _listed(place: Storage) -> list[str]:
    """The names in a folder; none for a file."""
    path = place.local_path
    return [] if path is not None and not path.is_dir() else [name for name in place.list() if not is_hidden(name)]


def _with_suffix(folder: Storage, names: list[str], suffix: str) -> list[RemoteFile]:
    return [RemoteFile(folder, name) for name in names if name.lower().endswith(suffix)]
