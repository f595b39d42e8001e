"""What lies at an address that is no data set, and the command that reads it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from distgan.data.files import is_hidden
from distgan.data.images import SUFFIXES
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.storage.urls import LOCAL_PROTOCOLS, split_url
from distgan.text import command

_MOST_SUB_FOLDERS = 8

_DATA_SET_FILE = "index.json"

SHARDS = "tar files"

OF_A_DATA_SET = DATA_SET, _PART_OF, _AROUND = "a data set", "part of a data set", "a folder with a data set in it"

# Files by their name, or its end if that begins with "." or "-": what they are, and the format of `data pack`; None for
# shards and data sets.
_KINDS: tuple[tuple[tuple[str, ...], str, str | None], ...] = (
    ((_DATA_SET_FILE,), DATA_SET, None),
    ((".tar",), SHARDS, None),
    ((".parquet",), "Parquet files", "parquet"),
    (("-images-idx3-ubyte", "-images-idx3-ubyte.gz"), "IDX files", "idx"),
    (("data_batch_1", "data_batch_1.bin", "cifar-10-python.tar.gz", "cifar-100-python.tar.gz"), "CIFAR", "cifar"),
    (("img_align_celeba", "img_align_celeba.zip"), "CelebA", "celeba"),
    (SUFFIXES, "images", "folder"),
    ((".npz",), "a NumPy archive", "npz"),
    ((".csv", ".tsv"), "a CSV file", "csv"),
)


@dataclass(frozen=True)
class Contents:
    """What lies at an address.

    Attributes:
        what: in words: `Parquet files`.
        format: the format of `data pack` that reads it; None for a data set and for shards.
        address: what to give to the command: the folder of a tar file, the CSV file in a folder.
    """

    what: str
    format: str | None
    address: str

    @property
    def advice(self) -> str:
        """What reads it: `use …`."""
        if self.format is not None:
            return f"use `{command('data', 'pack', self.address, '--format', self.format)} --out FOLDER`"
        if self.what in OF_A_DATA_SET:
            return f"give {self.address} as data.url"
        return f"use `{command('data', 'index', self.address)}`"


def contents_of(address: str, sought: Collection[str] = ()) -> Contents | None:
    """What lies at an address, by the names of files; None if that is not known, or nothing can be read there.

    Where there are several kinds, it is one that the formats `sought` read, if any.
    """
    try:
        protocol, _ = split_url(address)
        storage = Storage.open(address)
        path = Path(storage.root) if protocol in LOCAL_PROTOCOLS else None
        if path is not None and path.is_file():
            return _of_file(address, path.name)
        if path is None and (found := _of_file(address, address.rpartition("/")[2])) is not None:
            return found
        return _of_folder(storage, address.rstrip("/") or "/", sought)
    except (UserError, OSError):
        return None


def _of_file(address: str, name: str) -> Contents | None:
    found = _kind({name})
    if found is None:
        return None
    what, pack_format, _ = found
    if pack_format not in {None, "folder"}:
        return Contents(what, pack_format, address)
    folder = address.rpartition("/")[0] or "."  # these are read by folders
    if pack_format is None and _DATA_SET_FILE in Storage.open(folder).list():
        return Contents(_PART_OF, None, folder)
    return Contents(what, pack_format, folder)


def _of_folder(storage: Storage, address: str, sought: Collection[str], deep: bool = True) -> Contents | None:
    names = [name for name in storage.list() if not is_hidden(name)]
    if (found := _kind(names, sought)) is not None:
        what, pack_format, name = found
        return Contents(what, pack_format, f"{address}/{name}" if pack_format in {"csv", "npz"} else address)
    for name in [name for name in names if "." not in name][:_MOST_SUB_FOLDERS] if deep else []:
        folder = storage.child(name)
        path = folder.local_path
        below = _of_folder(folder, f"{address}/{name}", sought, deep=False) if path is None or path.is_dir() else None
        if below is not None:
            whole = below.format in {"folder", "parquet"} or below.what == SHARDS
            what = _AROUND if below.what == DATA_SET else below.what
            return Contents(what, below.format, address if whole else below.address)
    return None


def _kind(names: Collection[str], sought: Collection[str] = ()) -> tuple[str, str | None, str] | None:
    """The first of `_KINDS`, those that are sought before others, that one of the names is of, and that name."""
    for known, what, pack_format in sorted(_KINDS, key=lambda kind: kind[2] not in sought):
        endings = tuple(each for each in known if each[0] in ".-")
        for name in sorted(names):
            if name.lower() in known or name.lower().endswith(endings):
                return what, pack_format, name
    return None
