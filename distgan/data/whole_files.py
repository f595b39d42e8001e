"""Local files that appear whole, or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgan.errors import UserError

# How the names of files under way begin.
TEMPORARY = ".distgan-"


def is_special(path: Path) -> bool:
    """Whether there is something other than a file, or a link to one: a folder, a device, a pipe."""
    return path.exists() and not path.is_file()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, durably, when the block ends without an error.

    Raises UserError where `path` is a device, a pipe or the like, which no file may take the place of.
    """
    if is_special(path):
        raise UserError(f"{path}: is no regular file; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
