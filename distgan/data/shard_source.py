"""Which shards a URL names: those of a folder, one, or several by a pattern of numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from distgan.errors import UserError
from distgan.storage.storage import Storage

_RANGE = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")

_MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class ShardSource:
    """Shards that a URL names.

    Attributes:
        url: as given, of a local folder the absolute path.
        folder: that holds the shards.
        pattern: of the shards' names, `shard-{000..009}.tar`; None for all `.tar` files of the folder.
    """

    url: str
    folder: Storage
    pattern: str | None = None

    @classmethod
    def parse(cls, url: str) -> ShardSource:
        """The shards at the URL of a folder, of one shard, or of several: `https://host/shard-{000..009}.tar`.

        Raises UserError for what is no URL, and for an impossible pattern.
        """
        folder, slash, last = url.rpartition("/")
        if not last.endswith(".tar") or folder.endswith(":/") or os.path.isdir(url):  # noqa: PTH112 - takes any text
            storage = Storage.open(url)
            return cls(storage.url, storage)
        storage = Storage.open(folder or slash or ".")
        _numbers(last)
        return cls(f"{storage.url.rstrip('/')}/{last}", storage, last)

    def list(self) -> list[str]:
        """The names of the shards, in order. Raises UserError where the folder cannot be listed."""
        if self.pattern is None:
            return [name for name in self.folder.list() if name.endswith(".tar")]
        return [_RANGE.sub(number, self.pattern) for number in _numbers(self.pattern)]


def _numbers(pattern: str) -> Iterable[str]:
    """The numbers in a pattern's braces, with at least the digits of the first; one empty text for a plain name.

    Raises UserError for an impossible pattern.
    """
    found = _RANGE.search(pattern)
    if found is None:
        if "{" in pattern:
            raise UserError(f"{pattern}: braces hold two numbers, as in shard-{{000..009}}.tar")
        return [""]
    start, end = int(found[1]), int(found[2])
    if "{" in pattern[found.end() :] or "{" in pattern[: found.start()]:
        raise UserError(f"{pattern}: more than one pair of braces; give one")
    if not 0 <= end - start < _MOST_SHARDS:
        raise UserError(
            f"{pattern}: from {start:,} to {end:,} there are no shards, or too many; give the smaller first"
        )
    digits = len(found[1])
    return (f"{number:0{digits}}" for number in range(start, end + 1))
