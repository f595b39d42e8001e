"""Checkpoints of record: immutable folders under a run's storage, the manifest with checksums written last."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, ParamSpec

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import distgan
from distgan.data.storage import NotFoundError, Storage
from distgan.errors import UserError
from distgan.training.progress import Progress

FOLDER = "checkpoints"
_FORMAT: Literal["distgan-checkpoint-3"] = "distgan-checkpoint-3"
OLD_ORDER = "distgan-checkpoint-2"  # of runs whose groups read adjacent streams
_STATE_NAME = "state.pt"
_MANIFEST_NAME = "manifest.json"
_ATTEMPTS = 5
_FIRST_WAIT_S = 0.5

P = ParamSpec("P")


class Manifest(BaseModel):
    """What a checkpoint is, without its tensors.

    Attributes:
        config: the run's resolved configuration.
        workers, threads: with the same of both, a resume repeats the same bits.
        classes: names of the labels of a conditional generator.
        init_from: URL of the checkpoint whose weights the run began with; None for random ones.
        continued_from: URL of the checkpoint, of another run, whose whole state the run began with.
        seconds: how long the sessions of the run took up to here; None where an earlier version does not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal["distgan-checkpoint-2", "distgan-checkpoint-3"] = _FORMAT
    distgan: str
    name: str
    step: int
    kimg: float
    config: dict[str, Any]
    data_hash: str
    workers: int
    threads: int
    progress: dict[str, Any]
    classes: list[str] = []
    init_from: str | None = None
    continued_from: str | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    state_bytes: int = 0
    state_sha256: str = ""

    @field_validator("progress")
    @classmethod
    def _is_progress(cls, value: dict[str, Any]) -> dict[str, Any]:
        return Progress.from_dict(value).as_dict()


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, its tensors on the CPU."""

    url: str
    manifest: Manifest
    tensors: dict[str, Any]


def checkpoint_name(step: int) -> str:
    """Names that sort by step."""
    return f"step-{step:09d}"


class CheckpointStore:
    """Reads and writes the checkpoints of one run."""

    def __init__(self, run: Storage) -> None:
        self._storage = run.child(FOLDER)
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def names(self) -> list[str]:
        """All checkpoint folders, also unfinished ones, oldest first."""
        try:
            return sorted(name for name in self._storage.list() if name.startswith("step-"))
        except NotFoundError:
            return []

    def first_kept(self, names: Iterable[str]) -> str | None:
        """The first of these checkpoints whose folder is there."""
        return _first_of(names, self.names())

    def newest_manifest(self) -> Manifest | None:
        """The manifest of the newest checkpoint that has a readable one."""
        for name in reversed(self.names()):
            manifest = self._manifest(name)
            if manifest is not None:
                return manifest
        return None

    def newest_name(self) -> str | None:
        """The name of the newest whole checkpoint; half-written and damaged ones are passed over."""
        return next((name for name in reversed(self.names()) if self.load(name) is not None), None)

    def load(self, name: str) -> Checkpoint | None:
        """The checkpoint of that name, or None where it is not whole."""
        manifest = self._manifest(name)
        if manifest is None:
            return None
        try:
            data = self._storage.child(name).read_bytes(_STATE_NAME)
        except NotFoundError:
            return None
        if len(data) != manifest.state_bytes or hashlib.sha256(data).hexdigest() != manifest.state_sha256:
            return None
        url = f"{self._storage.url}/{name}"
        with fitting(url):
            return Checkpoint(url, manifest, torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))

    def save(
        self,
        manifest: Manifest,
        tensors: Mapping[str, Any],
        keep: set[str],
        best_first: Sequence[str],
        keep_last: int,
        done: Callable[[], None],
    ) -> None:
        """Writes a checkpoint in the background, then deletes all but the last `keep_last`, the best and `keep`.

        The best is the first of `best_first` that is there.

        The tensors are copied before this returns. Waits for the write before it; raises UserError where that one
        failed for good. `done` is called when the checkpoint is whole.
        """
        self.wait()
        snapshot = _copied(tensors)

        def write() -> None:
            try:
                _persistently(self._write, manifest, snapshot)
                _persistently(self._prune, keep, best_first, keep_last)
                done()
            except Exception as error:  # noqa: BLE001 - raised by the next wait()
                self._failure = error

        # Not a daemon: a checkpoint under way is finished even when the program ends.
        self._thread = threading.Thread(target=write, name="distgan-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when no write is under way. Raises UserError where the last one failed for good."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    @property
    def is_idle(self) -> bool:
        """Whether no write is under way."""
        return self._thread is None or not self._thread.is_alive()

    def settle(self) -> None:
        """Returns when no write is under way, whatever became of it."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, manifest: Manifest, tensors: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(tensors), buffer)
        data = buffer.getvalue()
        complete = manifest.model_copy(
            update={"state_bytes": len(data), "state_sha256": hashlib.sha256(data).hexdigest()}
        )
        folder = self._storage.child(manifest.name)
        folder.write_bytes(_STATE_NAME, data)
        folder.write_bytes(_MANIFEST_NAME, complete.model_dump_json(indent=1).encode())

    def _prune(self, keep: set[str], best_first: Sequence[str], keep_last: int) -> None:
        names = self.names()
        best = _first_of(best_first, names)
        for name in names[: max(0, len(names) - keep_last)]:
            if name not in keep and name != best:
                # The manifest goes first: what remains of an interrupted deletion is not whole.
                self._storage.delete(f"{name}/{_MANIFEST_NAME}")
                self._storage.delete(name)

    def _manifest(self, name: str) -> Manifest | None:
        """The manifest, None where it is missing or cut. Raises UserError for one of another version's format."""
        try:
            content = json.loads(self._storage.child(name).read_bytes(_MANIFEST_NAME))
        except (NotFoundError, ValueError, RecursionError):
            return None
        try:
            return Manifest.model_validate(content)
        except ValidationError:
            said = content if isinstance(content, dict) else {}
            written_by = said.get("distgan", "unknown")
            where = f"{self._storage.url}/{name}"
            if written_by == distgan.__version__ and said.get("format") == _FORMAT:
                raise UserError(f"{where}: its {_MANIFEST_NAME} is damaged; delete this checkpoint") from None
            raise UserError(
                f"{where}: not a checkpoint that distgan {distgan.__version__} can read "
                f"(written by version {written_by}); use that version, or start a new run with another --name"
            ) from None


@contextmanager
def fitting(checkpoint: str) -> Iterator[None]:
    """Inside, tensors are read or taken over. Raises UserError where they are not those that belong there."""
    try:
        yield
    except (
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({' '.join(str(error).split()):.120})"
        raise UserError(
            f"{checkpoint}: its tensors are not those of the run's networks{reason}; "
            f"give another checkpoint, or start a new run with another --name"
        ) from error


def _first_of(wanted: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _persistently(action: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Calls `action` again where storage failed, with growing pauses. Raises the last UserError."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return action(*args, **kwargs)
        except UserError:
            time.sleep(_FIRST_WAIT_S * 2**attempt)
    return action(*args, **kwargs)


def _copied(value: Any) -> Any:
    """A deep copy whose tensors are on the CPU and nobody else's."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
