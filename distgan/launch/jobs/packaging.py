"""Packages for a job: distgan's own code, the working folder, and secret variables."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import zipfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import distgan
from distgan.errors import UserError
from distgan.launch.jobs.bootstrap import ENVIRONMENT_FILE

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_MOST_BYTES = 100_000


def read_env_file(file: Path) -> dict[str, str]:
    """The variables of NAME=VALUE lines, which may have `export`, quotes around values, and # comments.

    Nothing is expanded. Raises UserError with a line's number, never with its text, which may be a secret.
    """
    try:
        with file.open("rb") as opened:  # a shell's pipe too
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"--env-file {file}: too large for a file of variables; write NAME=VALUE lines")
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"--env-file {file}: not text in UTF-8; write NAME=VALUE lines") from None
    except OSError as error:
        raise UserError(f"--env-file {file}: cannot be read: {error.strerror}") from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.removeprefix("export ").partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise UserError(f"--env-file {file}, line {number}: write NAME=VALUE, one variable a line")
        found[name.strip()] = _unquoted(value.strip(), f"--env-file {file}, line {number}")
    return found


def _unquoted(value: str, where: str) -> str:
    if "\0" in value:
        raise UserError(f"{where}: a value cannot hold a zero byte")
    for quote in ("'", '"'):
        if value.startswith(quote):
            inner, end, rest = value[1:].partition(quote)
            if not end or (rest.strip() and not rest.strip().startswith("#")):
                raise UserError(f"{where}: the quote is not closed; end the value with {quote}")
            return inner
    return re.sub(r"\s#.*$", "", value).rstrip()


MOST_BYTES = 100_000_000  # Ray's dashboard accepts 100 MiB

_NAMED = 3

# Never shipped: caches, environments, version control, secrets, runs and data sets.
_FOLDERS = (".*", "__pycache__", "*.egg-info", "checkpoints", "node_modules", "ray_results", "runs", "wandb")

_FILES = (
    ".*", "*.ckpt", "*.env", "*.key", "*.log", "*.pem", "*.pt", "*.pth", "*.pyc", "*.safetensors", "*.tar", "*.tar.gz",
    "*.tgz", "*.token", "auth_token", "credentials", "credentials.json", "events.out.tfevents.*", "index.table",
)  # fmt: skip


def files_of(folder: Path, secret: Iterable[Path] = ()) -> list[Path]:
    """The files of a working folder that are shipped, relative to it and sorted.

    `secret` files are left out, and in a git work tree what git ignores. Raises UserError for what is no folder,
    cannot be read, or is too large.
    """
    try:
        return _files_of(folder, {path.resolve() for path in secret})
    except PermissionError as error:
        raise UserError(f"--working-dir {folder}: {error.filename}: cannot be read: {error.strerror}") from None


def _files_of(folder: Path, secret: set[Path]) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"--working-dir {folder}: there is no such folder")
    tracked = _known_to_git(folder)
    found, sizes = [], {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_left_out(Path(root), name))
        for name in sorted(names):
            path = Path(root) / name
            relative = path.relative_to(folder)
            if _matches(name, _FILES) or not path.is_file() or (tracked is not None and relative not in tracked):
                continue
            if path.resolve() in secret:
                continue
            found.append(relative)
            sizes[relative] = path.stat().st_size
            if len(found) > 100_000:
                raise UserError(f"--working-dir {folder}: more than 100,000 files; name the folder of your code")
    total = sum(sizes.values())
    if total > MOST_BYTES:
        raise UserError(
            f"--working-dir {folder}: {_mb(total)} would be shipped, and {_mb(MOST_BYTES)} may be; the largest things "
            f"in it: {_largest(sizes)}; move them out, or list them in .gitignore of a git repository"
        )
    return found


def pack_folder(folder: Path, files: Iterable[Path], to: Path) -> None:
    """Writes a reproducible zip of these files of a folder; private files stay private.

    Raises UserError for a file that cannot be read.
    """
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            try:
                mode, content = (folder / file).stat().st_mode, (folder / file).read_bytes()
            except OSError as error:
                raise UserError(f"{folder / file}: cannot be shipped: {error.strerror}") from None
            mode = (0o755 if mode & 0o100 else 0o644) & (0o777 if mode & 0o044 else 0o700)
            archive.writestr(_entry(str(file), mode), content)


def pack_distgan(to: Path) -> None:
    """Writes a zip of the installed package distgan, without caches."""
    package = Path(distgan.__file__).parent
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    pack_folder(package.parent, sorted(path.relative_to(package.parent) for path in files), to)


def pack_environment(variables: dict[str, str], to: Path) -> None:
    """Writes a zip with the variables, in a file for its owner only, which `bootstrap.load_environment` reads.

    Ray shows a hash of what it ships. Random bytes keep the hash from revealing the values.
    """
    to.touch(mode=0o600)
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr(_entry(ENVIRONMENT_FILE, 0o600), json.dumps(variables))
        archive.writestr(_entry("distgan-environment.salt", 0o600), secrets.token_bytes(32))


def _entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o100000 | mode) << 16
    return info


def _is_left_out(root: Path, folder: str) -> bool:
    """Whether a folder is left out; a virtual environment is, by any name."""
    return _matches(folder, _FOLDERS) or (root / folder / "pyvenv.cfg").exists()


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _known_to_git(folder: Path) -> set[Path] | None:
    """The files of a folder that git tracks or would track; None outside a work tree, or without git."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {Path(os.fsdecode(name)) for name in listed.split(b"\0") if name}


def _largest(sizes: dict[Path, int]) -> str:
    """The largest entries of a working folder, with their sizes."""
    tops: dict[str, int] = {}
    for path, size in sizes.items():
        top = path.parts[0] + ("/" if len(path.parts) > 1 else "")
        tops[top] = tops.get(top, 0) + size
    ordered = sorted(tops.items(), key=lambda item: -item[1])[:_NAMED]
    return ", ".join(f"{name} {_mb(size)}" for name, size in ordered)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
