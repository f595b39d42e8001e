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
from distgan.training.manifest import MANIFEST_NAME, Manifest, parse_manifest

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
    run: Storage, newest_checkpoint: Callable[[], Manifest | None], retry: Retry, log: Callable[[str], None]
) -> None:
    """Writes what an earlier session has kept to the run's storage, the manifests of checkpoints last.

    If the newest checkpoint is neither that of which the session knew nor its own, nothing is written.
    """
    folder = unsaved_folder(run)
    mark = _mark(folder)
    if mark is None or mark.get("run") != run.url:
        return
    newest = newest_checkpoint()
    if mark.get("newest") != (newest and newest.name) and not (newest and _is_of_same_session(newest, folder)):
        log(f"{folder}: kept by a session that could not write it to {run.url}, whose checkpoints are others now; "
            f"delete it if you do not need it")  # fmt: skip
        return
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MARK)
    for path in sorted(paths, key=lambda path: path.name == MANIFEST_NAME):
        name = path.relative_to(folder).as_posix()
        retry(lambda path=path, name=name: run.upload(path, name))  # type: ignore[misc]
    shutil.rmtree(folder, ignore_errors=True)
    log(f"{folder}: what the session before could not write is now in {run.url}")


def _is_of_same_session(newest: Manifest, folder: Path) -> bool:
    """Whether the session that kept something wrote this one too: storage may complete a write that has failed."""
    kept = [
        parse_manifest(path.read_bytes(), path.parent.name, str(path)) for path in folder.glob(f"*/*/{MANIFEST_NAME}")
    ]
    return newest.session is not None and any(manifest.session == newest.session for manifest in kept)


def _mark(folder: Path) -> dict[str, object] | None:
    try:
        found = parse_json((folder / _MARK).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
