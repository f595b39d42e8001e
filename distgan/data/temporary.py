"""Folders for files under way."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distgan.errors import UserError


def new_folder() -> Path:
    """A new folder, its maker's to remove. Raises UserError where there is no place for one."""
    try:
        return Path(tempfile.mkdtemp(prefix="distgan-"))
    except OSError as error:
        raise UserError(f"no temporary folder can be made ({error.strerror}); set TMPDIR to one with room") from None


def private_folder(folder: Path) -> Path:
    """`folder`, made where it is not there, that only this user may enter; a new one where it is somebody else's.

    Raises OSError where it cannot be made.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    folder.chmod(0o700)
    return folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that is removed at the end. Raises UserError where there is no place for one."""
    folder = new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
