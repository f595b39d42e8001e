"""Which shards a URL names: those of a folder, one, or several by a pattern of numbers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from distgan.errors import UserError
from distgan.storage.storage import Storage

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")

_MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class ShardSource:
    """Shards that a URL names.

    Attributes:
        url: as given, of a local folder the absolute path.
        folder: that holds the shards.
        names: of the shards, in order; None for all `.tar` files of the folder.
    """

    url: str
    folder: Storage
    names: list[str] | None = None

    @classmethod
    def parse(cls, url: str) -> ShardSource:
        """From the URL of a folder, of one shard, or of several: `https://host/shard-{000..009}.tar`.

        Raises UserError for what is no URL, and for an impossible pattern.
        """
        folder, slash, last = url.rpartition("/")
        if not last.endswith(".tar") or folder.endswith(":/") or os.path.isdir(url):  # noqa: PTH112 - takes any text
            storage = Storage.open(url)
            return cls(storage.url, storage)
        storage = Storage.open(folder or slash or ".")
        return cls(f"{storage.url.rstrip('/')}/{last}", storage, _expanded(last))

    def list(self) -> list[str]:
        """The names of the shards. Raises UserError where the folder cannot be listed."""
        return self.names or [name for name in self.folder.list() if name.endswith(".tar")]


def _expanded(pattern: str) -> list[str]:
    """`shard-{000..002}.tar` as the three names: numbers have at least the digits of the first."""
    found = _RANGE.search(pattern)
    if found is None:
        if "{" in pattern:
            raise UserError(f"{pattern}: braces hold two numbers, as in shard-{{000..009}}.tar")
        return [pattern]
    start, end = int(found[1]), int(found[2])
    if "{" in pattern[found.end() :] or "{" in pattern[: found.start()]:
        raise UserError(f"{pattern}: more than one pair of braces; give one")
    if not 0 <= end - start < _MOST_SHARDS:
        raise UserError(
            f"{pattern}: from {start:,} to {end:,} there are no shards, or too many; give the smaller first"
        )
    digits = len(found[1])
    return [f"{pattern[: found.start()]}{number:0{digits}}{pattern[found.end() :]}" for number in range(start, end + 1)]
