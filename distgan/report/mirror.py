"""A local folder whose files a background thread copies to remote storage."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distgan.data.storage import Storage
from distgan.errors import UserError

_Version = tuple[int, int]


class Mirror:
    """A temporary folder, and its files in `storage` under the same names.

    Files must be replaced atomically or only grow: an upload holds a file's first bytes, as many as it had
    when `flush` was called, so that a line or a record is never cut.

    Attributes:
        folder: where to write; removed by `close`.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._temporary = tempfile.TemporaryDirectory(prefix="distgan-run-")
        self.folder = Path(self._temporary.name)
        self._sent: dict[str, _Version] = {}
        self._pending: dict[str, _Version] = {}
        self._failure: UserError | None = None
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="upload")

    def flush(self) -> None:
        """Upload the files that changed since they were last uploaded; returns at once.

        Raises:
            UserError: an earlier upload failed. Its file counts as changed until an upload succeeds.
        """
        self.check()
        self._mark_changed()
        self._executor.submit(self._upload_pending)

    def check(self) -> None:
        """Raise the `UserError` of an earlier upload that failed, once."""
        with self._lock:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Upload what is left, wait for it and remove the folder.

        Raises:
            UserError: some of it could not be uploaded; the folder is removed nevertheless.
        """
        try:
            self._executor.shutdown(wait=True)
            self._failure = None
            self._mark_changed()
            self._upload_pending()
            self.check()
        finally:
            self._temporary.cleanup()

    def _mark_changed(self) -> None:
        changed = self._versions()
        with self._lock:
            self._pending = {name: new for name, new in changed.items() if self._sent.get(name) != new}

    def _versions(self) -> dict[str, _Version]:
        """Size in bytes and time of change of every file, by its name below the folder."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        stats = ((path.relative_to(self.folder).as_posix(), path.stat()) for path in files)
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats}

    def _upload_pending(self) -> None:
        while True:
            with self._lock:
                if not self._pending:
                    return
                name, version = self._pending.popitem()
                self._sent[name] = version
            try:
                with (self.folder / name).open("rb") as file:
                    data = file.read(version[0])
                self._storage.write_bytes(name, data)
            except Exception as error:  # noqa: BLE001 - handed over to the thread that trains
                self._fail(name, error)
                return

    def _fail(self, name: str, error: Exception) -> None:
        line = f"{self._storage.url}/{name}: upload failed ({error!r}); check the run's storage"
        with self._lock:
            del self._sent[name]
            self._pending.clear()
            self._failure = error if isinstance(error, UserError) else UserError(line)
