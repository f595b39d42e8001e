"""Lists a user's files in a folder, and counts what is left out of it, or of an archive, by reason."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath

from distgan.errors import UserError
from distgan.storage.storage import translate_errors

# Reasons for leaving a file out, besides its suffix.
HIDDEN, DANGLING, CYCLIC, SPECIAL = "hidden or system", "dangling", "cyclic", "special"

SUB_FOLDER = "sub-folder"

BAD, WITHOUT_IMAGE, OTHER = "bad", "without an image", "of other kinds"

# Files that systems and programs put beside a user's; on macOS also all names that start with `._`.
_SYSTEM = frozenset({
    ".ds_store", ".git", ".ipynb_checkpoints", ".thumbnails", "#recycle", "$recycle.bin", "@eadir", "@recycle",
    "__macosx", "__pycache__", "desktop.ini", "lost+found", "system volume information", "thumbs.db",
})  # fmt: skip

_MOST_FOLDERS = 1_000_000

_MOST_REASONS = 32

_NAMED = 5


def is_system(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or a program."""
    return name.startswith("._") or name.lower() in _SYSTEM


def is_hidden(name: str) -> bool:
    """Whether the name starts with a dot, or is a system's."""
    return name.startswith(".") or is_system(name)


def walk_files(root: Path, *, below: bool = True) -> tuple[list[Path], Counter[str]]:
    """The files in a folder and, if `below`, in all folders below it, ordered by path; and counts of what is left out.

    Links are followed. Left out, and counted by reason, are links to a folder that contains them, hidden and system
    files and folders (a folder counts as one), broken links, and what is no regular file.

    Raises UserError for a folder that cannot be read.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    with translate_errors(str(root)):
        above = frozenset(_identity(folder) for folder in (root, *root.resolve().parents))
    waiting, folders = [(root, above)], 0
    while waiting:
        folder, above = waiting.pop()
        folders += 1
        if folders > _MOST_FOLDERS:
            raise UserError(f"{root}: more than {_MOST_FOLDERS:,} folders below it; do its links lead back and forth?")
        with translate_errors(str(folder)), os.scandir(folder) as entries:
            for entry in entries:
                path = folder / entry.name
                if is_hidden(entry.name):
                    left_out[HIDDEN] += 1
                elif entry.is_symlink() and not _target_exists(path):
                    left_out[DANGLING] += 1
                elif entry.is_file():
                    files.append(path)
                elif not entry.is_dir():
                    left_out[SPECIAL] += 1
                elif not below:
                    left_out[SUB_FOLDER] += 1
                else:
                    identity = _identity(path)
                    if identity in above:
                        left_out[CYCLIC] += 1
                    else:
                        waiting.append((path, above | {identity}))
    return sorted(files), left_out


def kind_of_file(name: str) -> str:
    """The reason for leaving a file out by its suffix: the suffix, in lower case and printable."""
    return ascii(PurePath(name).suffix.lower())[1:-1][:16] or "without a suffix"


def main_reasons(left_out: Counter[str]) -> dict[str, int]:
    """The most frequent reasons, and the rest as one."""
    reasons = dict(sorted(left_out.items(), key=lambda item: (-item[1], item[0])))
    rest = list(reasons)[_MOST_REASONS:]
    if rest:
        others = sum(reasons.pop(reason) for reason in rest)
        reasons[OTHER] = reasons.get(OTHER, 0) + others
    return reasons


def describe_counts(left_out: Mapping[str, int]) -> str:
    """The counts of the most frequent reasons as text: `9 .txt, 2 hidden or system`."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count:,} {reason}" for reason, count in ordered[:_NAMED]]
    if len(ordered) > _NAMED:
        parts.append(f"{sum(count for _, count in ordered[_NAMED:]):,} {OTHER}")
    return ", ".join(parts)


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode, which a link to a folder shares with it."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _target_exists(link: Path) -> bool:
    """Whether a link's target exists. Raises OSError if that cannot be known."""
    try:
        link.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    return True
