"""Whether a process can use a storage URL, how fast, and with whose credentials."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import suppress

import botocore.session
from botocore.exceptions import BotoCoreError

from distgan.data.storage import Storage
from distgan.data.storage_urls import S3_PROTOCOLS
from distgan.diagnosis.facts import StorageUse
from distgan.errors import UserError

SIZE = 8 * 2**20
MARK = "mark"
_SMALL = 1024
_READS = 5


def use_storage(url: str, name: str, marked: bool = False, size: int = SIZE) -> StorageUse:
    """Writes an object `name` of `size` bytes and a small one, reads and compares them, and removes both.

    `marked`: the driver has written an object called mark beside them.
    """
    large, small = f"{name}-large", f"{name}-small"
    content = os.urandom(size)
    try:
        storage = Storage.open(url)
        storage.prepare()
        try:
            storage.write_bytes(small, content[:_SMALL])
            latency = statistics.median(_timed_read(storage, small, content[:_SMALL]) for _ in range(_READS))
            began = time.perf_counter()
            storage.write_bytes(large, content)
            written = time.perf_counter() - began
            read = _timed_read(storage, large, content)
            sees_mark = storage.exists(MARK) if marked else None
        except UserError:
            with suppress(UserError):
                _remove(storage, small, large)
            raise
        _remove(storage, small, large)
    except UserError as error:
        return StorageUse(problem=str(error))
    return StorageUse(None, size, written, read, latency, sees_mark)


def credentials_source(url: str) -> str | None:
    """Which link of the AWS chain answers, in botocore's words: `env`, `shared-credentials-file`, `iam-role`, …

    None for a URL that is not S3's, or where none does.
    """
    if Storage.open(url).protocol not in S3_PROTOCOLS:
        return None
    try:
        found = botocore.session.Session().get_credentials()
    except (BotoCoreError, OSError):
        return None
    return None if found is None else str(found.method)


def _timed_read(storage: Storage, name: str, written: bytes) -> float:
    began = time.perf_counter()
    found = storage.read_bytes(name)
    seconds = time.perf_counter() - began
    if found != written:
        raise UserError(
            f"{storage.url}/{name}: other bytes come back than were written; what stands between here and the store, "
            f"as a proxy, must not change or keep them"
        )
    return seconds


def _remove(storage: Storage, *names: str) -> None:
    """The objects; of a folder that only this node has, the folder too."""
    for name in names:
        storage.delete(name)
    if storage.local_path is not None:
        with suppress(OSError):
            storage.local_path.rmdir()
