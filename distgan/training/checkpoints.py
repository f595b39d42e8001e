"""Checkpoints of record: immutable folders under a run's storage. The manifest, with checksums, is written last."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from distgan.errors import DamagedError, UserError
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import NotFoundError, Storage
from distgan.storage.storage_errors import StorageError
from distgan.training.checkpoint_checks import compare_tensors, expected_tensors, mismatch
from distgan.training.manifest import (
    MANIFEST_NAME,
    Manifest,
    damaged_checkpoint,
    manifest_bytes,
    parse_manifest,
)
from distgan.training.state_file import StateFile, tensor_bytes
from distgan.training.unsaved import description, keep_unsaved
from distgan.training.write_queue import Write, WriteQueue

FOLDER = "checkpoints"

_STATE_NAME = "state.pt"

_MOST_MANIFEST_BYTES = 64 * 2**20

# In a state file, beside its tensors: their names, and the settings of the optimizers.
_MOST_OTHER_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, with its tensors on the CPU.

    Attributes:
        skipped: the faults of newer (or better) checkpoints that it replaces, a sentence each.
    """

    url: str
    manifest: Manifest
    tensors: dict[str, Any]
    skipped: tuple[str, ...] = ()


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint of a step. Names sort by step."""
    return f"step-{step:09d}"


@dataclass(frozen=True)
class _Write(Write):
    """A checkpoint to write, with copies of its tensors."""

    manifest: Manifest
    tensors: Mapping[str, Any]
    first: Callable[[], None]
    then: Callable[[], None]


class CheckpointStore:
    """Reads and writes the checkpoints of one run.

    A thread writes them. While it writes one, at most one more waits, as a copy in host memory.

    A finished checkpoint is damaged if its tensors do not fit the configuration in its manifest.

    Args:
        run: the run's folder.
        custom: custom components of the user's configuration (`config.plugins.custom_names`). Others that a manifest
            names are not imported; its tensors are then not compared with networks.
        reading, writing: retry policies for unavailable storage.
        log: receives a line for each problem that does not end the run.

    Attributes:
        kept: where the last state is on this machine, if it could not be saved.
    """

    def __init__(
        self,
        run: Storage,
        custom: Mapping[str, str] | None = None,
        *,
        reading: Retry = NO_RETRY,
        writing: Retry = NO_RETRY,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._run, self._storage = run, run.child(FOLDER)
        self._custom, self._reading, self._writing, self._log = custom or {}, reading, writing, log
        self._queue = WriteQueue(self._write_one, self._log_skipped)
        self._newest: str | None = None
        self._existing: list[str] = []
        self.kept: str | None = None

    @property
    def skipped(self) -> int:
        """How many checkpoints were not written because storage was slower than they came due."""
        return self._queue.skipped

    def names(self) -> list[str]:
        """All checkpoint folders, unfinished ones too, oldest first."""
        return self._reading(self._names)

    def first_existing(self, names: Iterable[str]) -> str | None:
        """The first of these checkpoints that still exists."""
        return _first_of(names, self.names())

    def newest_manifest(self) -> Manifest | None:
        """The newest readable manifest."""
        for name in reversed(self.names()):
            try:
                return self._manifest(name)
            except (NotFoundError, DamagedError):
                continue
        return None

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint; unfinished and damaged ones are skipped. None if none is finished.

        Raises DamagedError if all finished ones are damaged, so that nothing overwrites them.
        """
        skipped: list[str] = []
        damaged: list[str] = []
        for name in reversed(self.names()):
            try:
                found = replace(self.read(name), skipped=tuple(skipped))
                self._newest = name
                return found
            except NotFoundError:
                skipped.append(f"{self._storage.url}/{name}: unfinished: it has no {MANIFEST_NAME}")
            except DamagedError as error:
                skipped.append(str(error))
                damaged.append(str(error))
        if damaged:
            raise DamagedError(
                f"{damaged[0]}; there is no older one to resume from: restore it, or start a new run with another "
                f"--name"
            )
        return None

    def newest_complete(self) -> Manifest | None:
        """The manifest of the newest complete checkpoint; None also if all finished ones are damaged."""
        try:
            newest = self.newest()
        except DamagedError:
            return None
        return None if newest is None else newest.manifest

    def newest_name(self) -> str | None:
        """The name of the newest complete checkpoint."""
        newest = self.newest_complete()
        return None if newest is None else newest.name

    def load(self, name: str) -> Checkpoint | None:
        """The checkpoint of that name, or None if it is unfinished or damaged."""
        try:
            return self.read(name)
        except (NotFoundError, DamagedError):
            return None

    def read(self, name: str) -> Checkpoint:
        """The checkpoint of that name.

        Raises NotFoundError for an unfinished one, DamagedError, and UserError for the format of another version.
        """
        manifest, folder = self._manifest(name), self._storage.child(name)
        where, file = f"{self._storage.url}/{name}", f"its {_STATE_NAME}"
        try:
            size = self._reading(lambda: folder.size(_STATE_NAME))
            if size != manifest.state_bytes:
                raise damaged_checkpoint(where, f"{file} has {size:,} bytes of {manifest.state_bytes:,}")
            expected = expected_tensors(manifest, where, self._custom)
            if expected is not None and size > tensor_bytes(expected) + _MOST_OTHER_BYTES:
                raise mismatch(manifest, where, f"{file} has {size:,} bytes, far more than its networks need")
            data = self._reading(lambda: folder.read_bytes(_STATE_NAME))
        except NotFoundError:
            raise damaged_checkpoint(where, f"{file} is missing") from None
        if hashlib.sha256(data).hexdigest() != manifest.state_sha256:
            raise damaged_checkpoint(where, f"{file} has another checksum")
        try:
            state = StateFile(data)
            if expected is not None:
                compare_tensors(manifest, where, state.specs, expected)
            return Checkpoint(where, manifest, state.tensors())
        except ValueError as error:
            raise damaged_checkpoint(where, f"{file}: {error}") from None

    def save(
        self,
        manifest: Manifest,
        tensors: Mapping[str, Any],
        keep: set[str],
        best_first: Sequence[str],
        keep_last: int,
        done: Callable[[], None],
        first: Callable[[], None] = lambda: None,
        *,
        required: bool = True,
    ) -> bool:
        """Writes a checkpoint in the background, then deletes all but the last `keep_last`, the best and `keep`.

        The best is the first of `best_first` that exists. The tensors are copied before this returns. `first` is called
        before each attempt, `done` when the checkpoint is complete.

        While another one is being written, this one waits in memory, in the place of an earlier one. It does not take
        the place of a required one or of the best: if it is neither itself, this returns False, else it first waits
        for the earlier one to begin. Raises UserError if an earlier write failed.

        What the storage does not take is kept on this machine (`training.unsaved`), unless a newer one waits.
        """

        def then() -> None:
            self._newest = manifest.name
            self._try_to_prune(keep, best_first, keep_last)
            done()

        self._queue.raise_failure()
        best = _first_of(best_first, [*self._existing, *self._queue.names, manifest.name])
        if not self._queue.make_room(manifest.name, best, required):
            return False
        tensors = _copied(tensors)
        self._queue.put(_Write(manifest.name, required, manifest.name == best, manifest, tensors, first, then))
        return True

    def wait(self, name: str | None = None) -> None:
        """Waits for all writes, or that of one checkpoint. Raises UserError if one failed."""
        self._queue.join(name)
        self._queue.raise_failure()

    def has_written(self, name: str) -> bool:
        """Whether a checkpoint that was given to `save`, or in another session, is complete, as far as is known."""
        return self._queue.has_written(name)

    def join(self) -> None:
        """Waits for all writes, even if they fail."""
        self._queue.join()

    def cancel(self) -> None:
        """Ends a write that waits for unavailable storage."""
        self._writing.cancel()

    def abandon(self) -> None:
        """Drops the checkpoint that waits, and ends the write in progress as `cancel` does."""
        self._queue.drop_waiting()
        self.cancel()
        self.join()

    def _log_skipped(self, name: str) -> None:
        self._log(
            f"{self._storage.url}: {name} is not written: storage takes longer for one than passes between two "
            f"(checkpoint.every_kimg, checkpoint.every_minutes); training continues, and checkpoint/skipped of the "
            f"metrics counts such"
        )

    def _write_one(self, write: _Write) -> None:
        self._write_or_keep(write)
        write.then()

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in self._storage.list() if name.startswith("step-"))
        except NotFoundError:
            return []

    def _write_or_keep(self, write: _Write) -> None:
        manifest, data = _serialized(write.manifest, write.tensors)

        def attempt() -> None:
            write.first()
            if manifest.name in self._names():
                self._storage.delete(manifest.name)  # unfinished or damaged
            _write(self._storage, manifest, data)

        try:
            self._writing(attempt)
        except StorageError:
            if self._queue.has_waiting and not write.required and not write.best:
                raise
            state = f"the state of step {manifest.step:,}"
            try:
                _write(keep_unsaved(self._run, self._newest).child(FOLDER), manifest, data)
                self.kept = f"{state} is in {description(self._run)}"
            except UserError as error:
                self.kept = f"{state} cannot be kept on this machine either ({error})"
            raise

    def _try_to_prune(self, keep: set[str], best_first: Sequence[str], keep_last: int) -> None:
        try:
            self._writing(lambda: self._prune(keep, best_first, keep_last))
        except UserError as error:
            self._log(f"{error}; older checkpoints are not deleted")

    def _prune(self, keep: set[str], best_first: Sequence[str], keep_last: int) -> None:
        self._existing = names = self._names()
        best = _first_of(best_first, names)
        for name in names[: max(0, len(names) - keep_last)]:
            if name not in keep and name != best:
                # The manifest first: an interrupted deletion leaves an unfinished checkpoint.
                self._storage.delete(f"{name}/{MANIFEST_NAME}")
                self._storage.delete(name)

    def _manifest(self, name: str) -> Manifest:
        """Raises NotFoundError where it is missing, DamagedError, and UserError for one of another version's format."""
        where, folder = f"{self._storage.url}/{name}", self._storage.child(name)

        def read() -> bytes:
            if folder.size(MANIFEST_NAME) > _MOST_MANIFEST_BYTES:
                raise damaged_checkpoint(where, f"its {MANIFEST_NAME} is far too large")
            return folder.read_bytes(MANIFEST_NAME)

        return parse_manifest(self._reading(read), name, where)


def _serialized(manifest: Manifest, tensors: Mapping[str, Any]) -> tuple[Manifest, bytes]:
    """The complete manifest, and the bytes of the state file."""
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    data = buffer.getvalue()
    sizes = {"state_bytes": len(data), "state_sha256": hashlib.sha256(data).hexdigest()}
    return manifest.model_copy(update=sizes), data


def _write(checkpoints: Storage, manifest: Manifest, data: bytes) -> None:
    folder = checkpoints.child(manifest.name)
    folder.write_bytes(_STATE_NAME, data)
    folder.write_bytes(MANIFEST_NAME, manifest_bytes(manifest))


@contextmanager
def matching_tensors(checkpoint: str) -> Iterator[None]:
    """Around the loading of a checkpoint's tensors. Raises UserError if they do not match the networks."""
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{checkpoint}: its tensors are not those of the run's networks ({' '.join(str(error).split()):.120}); "
            f"give another checkpoint, or start a new run with another --name"
        ) from error


def _first_of(candidates: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in candidates if name in names), None)


def _copied(value: Any) -> Any:
    """A deep copy with its tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
