"""Local files that appear whole or not at all, and temporary folders."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distgan.errors import UserError

# How the names of files under way begin.
TEMPORARY = ".distgan-"

# How file systems say that they cannot do a thing at all: CIFS, FUSE and others, of fsync above all.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def is_special(path: Path) -> bool:
    """Whether there is something other than a file, or a link to one: a folder, a device, a pipe."""
    return path.exists() and not path.is_file()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Durably, where the file system can.

    Raises UserError where `path` is a device, a pipe or the like, which no file may take the place of.
    """
    if is_special(path):
        raise UserError(f"{path}: is no regular file; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        yield temporary
        with temporary.open("rb+") as file:
            _fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(PermissionError):  # a folder that may be written, and not read
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            _fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, this process and thread alone of those that lock `path`; all of them where nothing can be locked.

    Raises OSError where the file cannot be made.
    """
    with path.open("w") as lock:
        with suppress(OSError):  # as NFS without its lock service answers
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


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
