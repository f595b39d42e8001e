"""What a session could not write to a run's storage, kept on this machine for the next session."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from distgan.bounds import parse_json
from distgan.storage.local_files import cache_folder
from distgan.storage.retry import Retry
from distgan.storage.storage import Storage, translate_errors
from distgan.training.manifest import MANIFEST_NAME

_MARK = "unsaved.json"


def unsaved_folder(run: Storage) -> Path:
    """The folder of this machine with what could not be written to `run`, under the same names."""
    digest = hashlib.sha256(run.url.encode()).hexdigest()
    return cache_folder() / "unsaved" / f"{run.url.rpartition('/')[2]}-{digest[:12]}"


def keep_unsaved(run: Storage, newest: str | None) -> Storage:
    """Makes the folder, or adds to that of the same session.

    `newest` is the newest complete checkpoint of the run. Raises UserError if the folder cannot be written.
    """
    folder, mark = unsaved_folder(run), {"run": run.url, "newest": newest}
    with translate_errors(str(folder)):
        if _mark(folder) != mark:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / _MARK).write_text(json.dumps(mark), encoding="utf-8")
    return Storage.open(str(folder))


def description(run: Storage) -> str:
    """Where the folder is, and how a run goes on with it."""
    return f"{unsaved_folder(run)} on {platform.node()}; there the same command puts it into {run.url} and resumes"


def restore_unsaved(
    run: Storage, newest_checkpoint: Callable[[], str | None], retry: Retry, log: Callable[[str], None]
) -> None:
    """Writes what an earlier session has kept to the run's storage, the manifests of checkpoints last.

    If the run has other checkpoints than that session left, nothing is written.
    """
    folder = unsaved_folder(run)
    mark = _mark(folder)
    if mark is None or mark.get("run") != run.url:
        return
    newest = newest_checkpoint()
    if mark.get("newest") != newest and not _is_kept(folder, run, newest, retry):
        log(f"{folder}: kept by a session that could not write it to {run.url}, whose checkpoints are others now; "
            f"delete it if you do not need it")  # fmt: skip
        return
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MARK)
    for path in sorted(paths, key=lambda path: path.name == MANIFEST_NAME):
        name = path.relative_to(folder).as_posix()
        retry(lambda path=path, name=name: run.upload(path, name))  # type: ignore[misc]
    shutil.rmtree(folder, ignore_errors=True)
    log(f"{folder}: what the session before could not write is now in {run.url}")


def _is_kept(folder: Path, run: Storage, newest: str | None, retry: Retry) -> bool:
    """Whether the run's newest checkpoint is one of those kept: the storage took it after the session had given up."""
    kept = list(folder.glob(f"*/{newest}/{MANIFEST_NAME}")) if newest is not None else []
    names = [path.relative_to(folder).as_posix() for path in kept]
    return any(retry(lambda name=name: run.read_bytes(name)) == (folder / name).read_bytes() for name in names)  # type: ignore[misc]


def _mark(folder: Path) -> dict[str, object] | None:
    try:
        found = parse_json((folder / _MARK).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
