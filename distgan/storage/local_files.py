"""Local files written atomically, locks, and temporary folders."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distgan.errors import UserError

# Prefix of the names of unfinished files.
TEMPORARY = ".distgan-"

# What CIFS, FUSE and other file systems answer to operations that they lack, above all fsync.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def is_special(path: Path) -> bool:
    """Whether `path` exists and is no file or link to one: a folder, a device, a pipe."""
    return path.exists() and not path.is_file()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path that replaces `path`, durably, when the block ends without an error.

    Raises UserError if `path` is a folder, a device, a pipe or the like.
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
    with suppress(PermissionError):  # a folder that may be written but not read
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            _fsync(folder)
        finally:
            os.close(folder)


def write_private(path: Path, text: str) -> None:
    """Replaces `path` by a file that only this user can read."""
    temporary = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` in the block; no lock where the file system has none.

    Raises OSError if the file cannot be made.
    """
    with path.open("w") as lock:
        with suppress(OSError):  # NFS without its lock service
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def cache_folder() -> Path:
    """The user's folder for files that outlive a process: below XDG_CACHE_HOME, by default ~/.cache.

    For a user without a home it is a folder that cannot be created.
    """
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/nonexistent")
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "distgan"


def new_folder() -> Path:
    """A new temporary folder, which the caller removes. Raises UserError if none can be made."""
    try:
        return Path(tempfile.mkdtemp(prefix="distgan-"))
    except OSError as error:
        raise UserError(f"no temporary folder can be made ({error.strerror}); set TMPDIR to one with room") from None


def private_folder(folder: Path) -> Path:
    """`folder`, made if it does not exist, that only this user may enter; another one if it is another user's.

    Raises OSError if it cannot be made.
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
    """A new folder that is removed at the end. Raises UserError if none can be made."""
    folder = new_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# A younger folder may belong to a process that has not locked it yet.
_ABANDONED_S = 60.0


class OwnedFolder:
    """A new temporary folder that this process holds a lock on. Removes those of this user that no process holds.

    Raises OSError if none can be made.

    Attributes:
        path: where it is.
    """

    def __init__(self, prefix: str) -> None:
        for found in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            with suppress(OSError):
                _remove_abandoned(found)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._lock = os.open(self.path, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def keep(self) -> Path:
        """Gives up the folder under another name, which nobody removes; returns it."""
        kept = self.path.rename(self.path.with_name(f"kept-{self.path.name}"))
        os.close(self._lock)
        return kept


def _remove_abandoned(folder: Path) -> None:
    """Removes a folder of this user whose process has ended. Raises OSError where another process holds it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or time.time() - found.st_mtime < _ABANDONED_S:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
