"""Folders for files under way."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgan.errors import UserError


def new_folder() -> Path:
    """A new folder, its maker's to remove. Raises UserError where there is no place for one."""
    try:
        return Path(tempfile.mkdtemp(prefix="distgan-"))
    except OSError as error:
        raise UserError(f"no temporary folder can be made ({error.strerror}); set TMPDIR to one with room") from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that is removed at the end. Raises UserError where there is no place for one."""
    folder = new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
