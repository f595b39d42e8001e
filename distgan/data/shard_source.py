"""Which shards a URL names: those below a folder, one, or several by a pattern in braces."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from distgan.data.files import is_hidden, walk_files
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.storage.urls import plain_name

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # of which no part can be read by itself

SHARD_SUFFIXES = (".tar", *COMPRESSED)

_BRACES = re.compile(r"\{([^{}]*)\}")

_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")

_MOST_SHARDS = 1_000_000

_LONGEST_NAME = 1000

# Control characters, those that fsspec takes for a pattern, and bytes that are no UTF-8.
_NOT_IN_NAMES = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff*?\\[\\]\\\\]")

_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


def check_shard_name(name: str) -> str:
    """The name of a shard, whose parts are joined by slashes. Raises ValueError with the reason for another text."""
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"a shard's name has at most {_LONGEST_NAME:,} characters")
    if _NOT_IN_NAMES.search(name):
        raise ValueError("a shard's name has no control characters, none of * ? [ ] \\ and is UTF-8")
    if any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError("a shard's name has parts joined by single slashes, none of them `.` or `..`")
    return name


@dataclass(frozen=True)
class ShardSource:
    """Shards that a URL names.

    Attributes:
        url: as given, of a local folder the absolute path.
        folder: that holds the shards.
        pattern: of the shards' names, `{00..09}/shard-{000..009}.tar`; None for all tar files below the folder.
    """

    url: str
    folder: Storage
    pattern: str | None = None

    @classmethod
    def parse(cls, url: str) -> ShardSource:
        """The shards at the URL of a folder, of one shard, or of several: `https://host/{00..09}/shard-{000..009}.tar`.

        Raises UserError for what is no URL, and for an impossible pattern.
        """
        head, brace, _ = url.partition("{")
        folder, slash, last = (head if brace else url).rpartition("/")
        name = last + url[len(head) :] if brace else last
        is_name = brace or (last.endswith(SHARD_SUFFIXES) and not folder.endswith(":/"))
        if not is_name or os.path.isdir(url):  # noqa: PTH112 - takes any text
            storage = Storage.open(url)
            return cls(storage.url, storage)
        if not name.endswith(SHARD_SUFFIXES):
            raise UserError(f"{url}: a pattern in braces names shards; end it with .tar or .tar.gz, after the braces")
        storage = Storage.open(folder or slash or ".")
        _expanded(name)
        return cls(f"{storage.url.rstrip('/')}/{name}", storage, name)

    def list(self) -> list[str]:
        """The names of the shards, compressed ones too, in order. Raises UserError where the folder cannot be listed.

        Raises it too for a folder with several splits, or with data sets below it.
        """
        if self.pattern is not None:
            return [plain_name(name, self.folder.protocol) for name in _expanded(self.pattern)]
        files = self._files()
        shards = [name for name in files if name.endswith(SHARD_SUFFIXES)]
        below = sorted({name.split("/")[0] for name in shards if "/" in name})
        folders = {_folder_of(name) for name in shards} - {""}
        sets = [name for name in files if name.endswith("/index.json") and _folder_of(name) in folders]
        if sets:
            place = self.folder.child(_folder_of(sets[0])).url
            raise UserError(f"{self.url}: a folder with a data set in it ({place}); give that one, or another folder")
        if len(splits := [name for name in below if name.lower() in _SPLITS]) > 1:
            places = ", ".join(self.folder.child(name).url for name in splits)
            raise UserError(f"{self.url}: its folders are different splits; give one of them: {places}")
        return shards

    def _files(self) -> Sequence[str]:
        """The names of all files below the folder but hidden ones, in order; none for a missing folder."""
        path = self.folder.local_path
        if path is None:
            found = self.folder.find()
            return [name for name in found if not any(map(is_hidden, name.split("/")))]
        if not path.is_dir():
            return []
        return [file.relative_to(path).as_posix() for file in walk_files(path)[0]]


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _expanded(pattern: str) -> Sequence[str]:
    """The names of a pattern: `{000..099}` are numbers with at least the digits of the first, `{a,b}` the words.

    Raises UserError for an impossible pattern.
    """
    literal = _BRACES.split(pattern)[::2]
    if any("{" in text for text in literal):
        raise UserError(f"{pattern}: a brace without its other one; write shard-{{000..009}}.tar")
    choices = [_choices(text, pattern) for text in _BRACES.findall(pattern)]
    if math.prod(map(len, choices)) > _MOST_SHARDS:
        raise UserError(f"{pattern}: more than {_MOST_SHARDS:,} shards; give fewer")
    names = (
        "".join(itertools.chain(*itertools.zip_longest(literal, chosen, fillvalue="")))
        for chosen in itertools.product(*choices)
    )
    return list(dict.fromkeys(names))


def _choices(text: str, pattern: str) -> Sequence[str]:
    """The texts that what is in a pair of braces stands for."""
    found = _RANGE.fullmatch(text)
    if found is None:
        words = text.split(",")
        if len(words) < 2:
            raise UserError(
                f"{pattern}: braces hold two numbers, as in shard-{{000..009}}.tar, or words: {{train,test}}"
            )
        return words
    start, end = int(found[1]), int(found[2])
    if not 0 <= end - start < _MOST_SHARDS:
        raise UserError(
            f"{pattern}: from {start:,} to {end:,} there are no shards, or too many; give the smaller first"
        )
    digits = len(found[1])
    return [f"{number:0{digits}}" for number in range(start, end + 1)]
