"""Checkpoints of record: immutable folders under a run's storage. The manifest, with checksums, is written last."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from distgan.config.load import build_config
from distgan.config.plugins import custom_names, without_custom_observers
from distgan.errors import DamagedError, UserError
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import NotFoundError, Storage
from distgan.storage.storage_errors import StorageError
from distgan.training.manifest import (
    MANIFEST_NAME,
    Manifest,
    damaged_checkpoint,
    is_other,
    manifest_bytes,
    of_other_version,
    parse_manifest,
)
from distgan.training.networks import build_networks
from distgan.training.optimizers import moment_specs
from distgan.training.progress import Progress
from distgan.training.state_file import StateFile, difference, specs_of, tensor_bytes
from distgan.training.unsaved import description, keep_unsaved

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


class CheckpointStore:
    """Reads and writes the checkpoints of one run.

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
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._newest: str | None = None
        self.kept: str | None = None

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

    def newest_name(self) -> str | None:
        """The name of the newest complete checkpoint."""
        try:
            newest = self.newest()
        except DamagedError:
            return None
        return None if newest is None else newest.manifest.name

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
            expected = self._expected(manifest, where)
            if expected is not None and size > tensor_bytes(expected) + _MOST_OTHER_BYTES:
                raise _mismatch(manifest, where, f"{file} has {size:,} bytes, far more than its networks need")
            data = self._reading(lambda: folder.read_bytes(_STATE_NAME))
        except NotFoundError:
            raise damaged_checkpoint(where, f"{file} is missing") from None
        if hashlib.sha256(data).hexdigest() != manifest.state_sha256:
            raise damaged_checkpoint(where, f"{file} has another checksum")
        try:
            state = StateFile(data)
            if expected is not None:
                _compare(manifest, where, state.specs, expected)
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
    ) -> None:
        """Writes a checkpoint in the background, then deletes all but the last `keep_last`, the best and `keep`.

        The best is the first of `best_first` that exists. The tensors are copied before this returns. `first` is called
        before each attempt, `done` when the checkpoint is complete. Waits for the previous write, and raises UserError
        if that one failed.

        What the storage does not take is kept on this machine (`training.unsaved`).
        """
        self.wait()
        snapshot = _copied(tensors)

        def write() -> None:
            try:
                self._write_or_keep(*_serialized(manifest, snapshot), first)
                self._newest = manifest.name
                self._try_to_prune(keep, best_first, keep_last)
                done()
            except Exception as error:  # noqa: BLE001 - raised by the next wait()
                self._failure = error

        # Not a daemon thread: the program ends only when the checkpoint is complete.
        self._thread = threading.Thread(target=write, name="distgan-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Waits for the write in progress. Raises UserError if the last one failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    @property
    def is_idle(self) -> bool:
        """Whether no write is in progress."""
        return self._thread is None or not self._thread.is_alive()

    def join(self) -> None:
        """Waits for the write in progress, even if it fails."""
        if self._thread is not None:
            self._thread.join()

    def cancel(self) -> None:
        """Ends a write that waits for unavailable storage."""
        self._writing.cancel()

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in self._storage.list() if name.startswith("step-"))
        except NotFoundError:
            return []

    def _write_or_keep(self, manifest: Manifest, data: bytes, first: Callable[[], None]) -> None:
        def write() -> None:
            first()
            if manifest.name in self._names():
                self._storage.delete(manifest.name)  # unfinished or damaged
            _write(self._storage, manifest, data)

        try:
            self._writing(write)
        except StorageError:
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
        names = self._names()
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

    def _expected(self, manifest: Manifest, where: str) -> dict[str, Any] | None:
        """The tree of `TensorSpec` that the run of a manifest saves; None if it has other custom components."""
        tree = without_custom_observers(manifest.config)
        custom = custom_names(tree)
        if not custom.items() <= self._custom.items():
            return None
        try:
            config = build_config(tree, where if custom else "its configuration", trust_code=True)
            networks = build_networks(config, torch.device("meta"))
        except UserError as error:
            if custom:
                raise
            raise _mismatch(manifest, where, str(error)) from None
        generator, discriminator = (
            specs_of(networks.generator.state_dict()),
            specs_of(networks.discriminator.state_dict()),
        )
        progress, optimizer = Progress.from_dict(manifest.progress), config.optimizer
        # An optimizer has moments from its first update on.
        generator_moments = moment_specs(optimizer.generator, networks.generator) if progress.step else {}
        discriminator_moments = (
            moment_specs(optimizer.discriminator, networks.discriminator) if progress.discriminator_updates else {}
        )
        return {
            "generator": generator,
            "discriminator": discriminator,
            "ema": generator,
            "generator_optimizer": {"state": generator_moments, "param_groups": None},
            "discriminator_optimizer": {"state": discriminator_moments, "param_groups": None},
        }


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


def _compare(manifest: Manifest, where: str, found: Any, expected: dict[str, Any]) -> None:
    """Raises DamagedError if the tensors of a state file are not the expected ones."""
    if custom_names(manifest.config):
        expected = {name: _without_unused(part, found.get(name)) for name, part in expected.items()}
    differs = difference(found, expected)
    if differs is not None:
        raise _mismatch(manifest, where, f"its tensors are not those of its networks: {differs}")


def _mismatch(manifest: Manifest, where: str, reason: str) -> UserError:
    if is_other(manifest.distgan):
        return of_other_version(where, manifest.distgan, reason)
    return damaged_checkpoint(where, reason)


def _without_unused(expected: Mapping[str, Any], found: Any) -> Mapping[str, Any]:
    """The expected state without moments that are not found: custom networks may have parameters without gradients."""
    state = found.get("state") if isinstance(found, Mapping) else None
    if "state" not in expected or not isinstance(state, Mapping) or not state:
        return expected
    return {**expected, "state": {number: spec for number, spec in expected["state"].items() if number in state}}


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
