"""A user's own modules (`module:Class`) as files with a hash: a run keeps them, and a resume tells of changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distgan.config.plugins import custom_sources
from distgan.text import without_credentials

# Below a run's folder.
FOLDER = "code"

_MOST_FILES, _MOST_BYTES = 1_000, 8 * 2**20


@dataclass(frozen=True)
class OwnModule:
    """A module, or the Python files of a package.

    Attributes:
        name: of the module; of a package, the first part.
        files: contents by path, as `nets.py` or `nets/blocks.py`.
    """

    name: str
    files: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        """SHA-256 of the names, sizes and contents of its files, in the order of their names."""
        digest = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            digest.update(f"{path}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
            digest.update(content)
        return digest.hexdigest()

    @property
    def folder(self) -> str:
        """The module's folder below that of the run."""
        return kept_in(self.sha256)


def kept_in(sha256: str) -> str:
    """The folder of a module with this hash, below that of its run."""
    return f"{FOLDER}/{sha256[:12]}"


def own_modules(names: Iterable[str]) -> list[OwnModule]:
    """The modules of custom components, by their names `module:Class`, without installed packages.

    What cannot be read, and a folder with more than 1,000 files or 8 MiB of Python, is left out.
    """
    found = (_read(Path(source)) for source in custom_sources(names))
    return [module for module in found if module is not None]


def changed_modules(before: Mapping[str, str], now: Mapping[str, str], run_url: str, checkpoint: str) -> list[str]:
    """A line for each module that is not what it was when the checkpoint was made; both are hashes by name."""
    return [
        without_credentials(
            f"{name}: this module has changed since {checkpoint}; the run goes on with it as it is now, and as it was "
            f"it is in {run_url}/{kept_in(before[name])}"
        )
        for name, sha256 in now.items()
        if before.get(name, sha256) != sha256
    ]


def _read(source: Path) -> OwnModule | None:
    files: dict[str, bytes] = {}
    total = 0
    try:
        for path in [source] if source.is_file() else _python_files(source):
            total += path.stat().st_size
            if total > _MOST_BYTES or len(files) == _MOST_FILES:
                return None
            files[path.relative_to(source.parent).as_posix()] = path.read_bytes()
    except OSError:
        return None
    return OwnModule(source.stem, files) if files else None


def _python_files(folder: Path) -> Iterable[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        yield from (Path(place) / name for name in sorted(names) if name.endswith(".py"))
