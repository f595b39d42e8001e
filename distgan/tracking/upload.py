"""A local folder whose files a background thread copies to remote storage."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from distgan.errors import UserError
from distgan.storage.local_files import OwnedFolder
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import Storage, UnavailableError
from distgan.training.unsaved import description, keep_unsaved

_Version = tuple[int, int]


class UploadQueue:
    """A temporary folder, and its files in `storage` under the same names.

    Files must be replaced atomically or only grow: an upload holds a file's first bytes, as many as it had
    when `flush` was called, so that a line or a record is never cut.

    Errors of the storage are logged, once until everything is uploaded again; the files count as changed.

    Attributes:
        folder: where to write; removed by `close`.
    """

    def __init__(self, storage: Storage, log: Callable[[str], None]) -> None:
        self._storage, self._log = storage, log
        self._owned = OwnedFolder("distgan-upload-")
        self.folder = self._owned.path
        self._sent: dict[str, _Version] = {}
        self._pending: dict[str, _Version] = {}
        self._failing = False
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="upload")

    def flush(self) -> None:
        """Starts to upload the files that changed since they were last uploaded; returns at once."""
        self._mark_changed()
        self._executor.submit(self._upload_pending)

    def upload(self) -> None:
        """Uploads the files that changed since they were last uploaded, and waits for it."""
        self._mark_changed()
        self._executor.submit(self._upload_pending).result()

    def close(self, retry: Retry = NO_RETRY, newest: str | None = None) -> None:
        """Uploads the rest, waits for it and removes the folder.

        What cannot be uploaded is kept for the next session, which resumes from the checkpoint `newest`.
        """
        self._executor.shutdown(wait=True, cancel_futures=True)

        def upload() -> None:
            self._mark_changed()
            failure = self._upload_all()
            if failure is not None:
                raise failure

        try:
            retry(upload)
        except UserError as error:
            self._keep(error, newest)
        else:
            self._owned.remove()

    def _keep(self, error: UserError, newest: str | None) -> None:
        try:
            shutil.copytree(self.folder, keep_unsaved(self._storage, newest).root, dirs_exist_ok=True)
        except (UserError, OSError):
            self._log(f"{error}; metrics and pictures are in {self._owned.keep()}: copy them to {self._storage.url}")
        else:
            self._log(f"{error}; metrics and pictures are in {description(self._storage)}")
            self._owned.remove()

    def _mark_changed(self) -> None:
        changed = self._versions()
        with self._lock:
            self._pending = {name: new for name, new in changed.items() if self._sent.get(name) != new}

    def _versions(self) -> dict[str, _Version]:
        """Size in bytes and modification time of every file, by its name below the folder."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        stats = ((path.relative_to(self.folder).as_posix(), path.stat()) for path in files)
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats}

    def _upload_pending(self) -> None:
        if not self._pending:
            return
        failure = self._upload_all()
        if failure is not None and not self._failing:
            self._log(f"{failure}; training continues, and metrics and pictures are uploaded when it works again")
        self._failing = failure is not None

    def _upload_all(self) -> UserError | None:
        """Uploads all files, or as many as possible while the storage is available; returns the first error."""
        first: UserError | None = None
        while True:
            with self._lock:
                if not self._pending:
                    return first
                name, version = self._pending.popitem()
                self._sent[name] = version
            try:
                with (self.folder / name).open("rb") as file:
                    data = file.read(version[0])
                self._storage.write_bytes(name, data)
            except Exception as error:  # noqa: BLE001 - logged; training continues
                failure = error if isinstance(error, UserError) else UserError(f"{self._storage.url}/{name}: {error!r}")
                first = first or failure
                with self._lock:
                    del self._sent[name]
                    if isinstance(error, UnavailableError):
                        self._pending.clear()
