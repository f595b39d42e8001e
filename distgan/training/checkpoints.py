"""Checkpoints of record: immutable folders under a run's storage, the manifest with checksums written last."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import distgan
from distgan.bounds import parse_json
from distgan.config.load import build_config
from distgan.config.plugins import own_names, with_former_options
from distgan.errors import UserError
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import NotFoundError, Storage
from distgan.training.networks import build_networks
from distgan.training.optimizers import moment_specs
from distgan.training.progress import Images, Progress, Updates
from distgan.training.state_file import StateFile, difference, specs_of, tensor_bytes

FOLDER = "checkpoints"

_FORMAT: Literal["distgan-checkpoint-3"] = "distgan-checkpoint-3"

OLD_ORDER = "distgan-checkpoint-2"  # of runs whose groups read adjacent streams

_FORMATS = (OLD_ORDER, _FORMAT)

_STATE_NAME = "state.pt"

_MANIFEST_NAME = "manifest.json"

_MOST_MANIFEST_BYTES = 64 * 2**20

# Of a state, beside its tensors: their names, and the optimizers' settings.
_MOST_OTHER_BYTES = 16 * 2**20


class DamagedError(UserError):
    """A checkpoint is not what its run has saved. The message says what is wrong with it."""


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
    step: Updates
    kimg: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    config: dict[str, Any]
    data_hash: str
    workers: Annotated[int, Field(ge=1, le=2**20)]
    threads: Annotated[int, Field(ge=1, le=2**12)]
    progress: dict[str, Any]
    classes: list[str] = []
    init_from: str | None = None
    continued_from: str | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    state_bytes: Images = 0
    state_sha256: str = ""

    @field_validator("progress")
    @classmethod
    def _is_progress(cls, value: dict[str, Any]) -> dict[str, Any]:
        progress = Progress.from_dict(value)
        if not progress.health.is_possible:
            raise ValueError("numbers that no run has")
        return progress.as_dict()

    @field_validator("config")
    @classmethod
    def _is_as_trained(cls, value: dict[str, Any]) -> dict[str, Any]:
        return with_former_options(value)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint, its tensors on the CPU.

    Attributes:
        passed_over: what is wrong with others that would have been taken before it, a sentence each.
    """

    url: str
    manifest: Manifest
    tensors: dict[str, Any]
    passed_over: tuple[str, ...] = ()


def checkpoint_name(step: int) -> str:
    """Names that sort by step."""
    return f"step-{step:09d}"


class CheckpointStore:
    """Reads and writes the checkpoints of one run.

    A checkpoint that is not whole, or whose tensors are not those that the run of its manifest saves, is damaged.

    Args:
        run: the run's folder.
        own: networks and the like of the user's own configuration (`config.components.own_names`). Those of others,
            which a manifest may name, are not imported: tensors are then not compared with them.
        reading, writing: what to do where storage is away.
        say: is told what does not end the run.
    """

    def __init__(
        self,
        run: Storage,
        own: Mapping[str, str] | None = None,
        *,
        reading: Retry = NO_RETRY,
        writing: Retry = NO_RETRY,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._storage = run.child(FOLDER)
        self._own, self._reading, self._writing, self._say = own or {}, reading, writing, say
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def names(self) -> list[str]:
        """All checkpoint folders, also unfinished ones, oldest first."""
        return self._reading(self._names)

    def first_kept(self, names: Iterable[str]) -> str | None:
        """The first of these checkpoints whose folder is there."""
        return _first_of(names, self.names())

    def newest_manifest(self) -> Manifest | None:
        """The manifest of the newest checkpoint that has a readable one."""
        for name in reversed(self.names()):
            try:
                return self._manifest(name)
            except (NotFoundError, DamagedError):
                continue
        return None

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint; half-written and damaged ones are passed over. None where there is none yet.

        Raises DamagedError where all that were finished are damaged: what is left is not to be overwritten.
        """
        damaged: list[str] = []
        for name in reversed(self.names()):
            try:
                return replace(self.read(name), passed_over=tuple(damaged))
            except NotFoundError:
                continue
            except DamagedError as error:
                damaged.append(str(error))
        if damaged:
            raise DamagedError(
                f"{damaged[0]}; there is no older one to go on from: bring it back, or start a new run with another "
                f"--name"
            )
        return None

    def newest_name(self) -> str | None:
        """The name of the newest whole checkpoint."""
        try:
            newest = self.newest()
        except DamagedError:
            return None
        return None if newest is None else newest.manifest.name

    def load(self, name: str) -> Checkpoint | None:
        """The checkpoint of that name, or None where it is not whole."""
        try:
            return self.read(name)
        except (NotFoundError, DamagedError):
            return None

    def read(self, name: str) -> Checkpoint:
        """The checkpoint of that name.

        Raises NotFoundError for one that is not finished, DamagedError, and UserError for one of another format.
        """
        manifest, folder = self._manifest(name), self._storage.child(name)
        where, file = f"{self._storage.url}/{name}", f"its {_STATE_NAME}"
        try:
            size = self._reading(lambda: folder.size(_STATE_NAME))
            if size != manifest.state_bytes:
                raise DamagedError(f"{where}: damaged: {file} has {size:,} bytes of {manifest.state_bytes:,}")
            wanted = self._wanted(manifest, where)
            if wanted is not None and size > tensor_bytes(wanted) + _MOST_OTHER_BYTES:
                raise self._unfit(manifest, where, f"{file} has {size:,} bytes, far more than its networks need")
            data = self._reading(lambda: folder.read_bytes(_STATE_NAME))
        except NotFoundError:
            raise DamagedError(f"{where}: damaged: {file} is missing") from None
        if hashlib.sha256(data).hexdigest() != manifest.state_sha256:
            raise DamagedError(f"{where}: damaged: {file} has another checksum")
        try:
            state = StateFile(data)
            if wanted is not None:
                self._compare(manifest, where, state.specs, wanted)
            return Checkpoint(where, manifest, state.tensors())
        except ValueError as error:
            raise DamagedError(f"{where}: damaged: {file}: {error}") from None

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
                self._writing(lambda: self._write(manifest, snapshot))
                self._try_to_prune(keep, best_first, keep_last)
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

    def give_up(self) -> None:
        """A write that waits for storage ends."""
        self._writing.cancel()

    def _names(self) -> list[str]:
        try:
            return sorted(name for name in self._storage.list() if name.startswith("step-"))
        except NotFoundError:
            return []

    def _write(self, manifest: Manifest, tensors: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(tensors), buffer)
        data = buffer.getvalue()
        complete = manifest.model_copy(
            update={"state_bytes": len(data), "state_sha256": hashlib.sha256(data).hexdigest()}
        )
        if manifest.name in self._names():
            self._storage.delete(manifest.name)  # half-written or damaged; perhaps a folder where a file should be
        folder = self._storage.child(manifest.name)
        folder.write_bytes(_STATE_NAME, data)
        folder.write_bytes(_MANIFEST_NAME, complete.model_dump_json(indent=1).encode())

    def _try_to_prune(self, keep: set[str], best_first: Sequence[str], keep_last: int) -> None:
        try:
            self._writing(lambda: self._prune(keep, best_first, keep_last))
        except UserError as error:
            self._say(f"{error}; older checkpoints are left there")

    def _prune(self, keep: set[str], best_first: Sequence[str], keep_last: int) -> None:
        names = self._names()
        best = _first_of(best_first, names)
        for name in names[: max(0, len(names) - keep_last)]:
            if name not in keep and name != best:
                # The manifest goes first: what remains of an interrupted deletion is not whole.
                self._storage.delete(f"{name}/{_MANIFEST_NAME}")
                self._storage.delete(name)

    def _manifest(self, name: str) -> Manifest:
        """Raises NotFoundError where it is missing, DamagedError, and UserError for one of another version's format."""
        where, folder = f"{self._storage.url}/{name}", self._storage.child(name)

        def read() -> bytes:
            if folder.size(_MANIFEST_NAME) > _MOST_MANIFEST_BYTES:
                raise DamagedError(f"{where}: damaged: its {_MANIFEST_NAME} is far too large")
            return folder.read_bytes(_MANIFEST_NAME)

        data = self._reading(read)
        try:
            content = parse_json(data)
        except ValueError:
            raise DamagedError(f"{where}: damaged: its {_MANIFEST_NAME} is no JSON") from None
        said = content if isinstance(content, dict) else {}
        try:
            if said.get("format") not in _FORMATS:
                raise ValueError
            manifest = Manifest.model_validate(content)
            if manifest.name != name:
                raise DamagedError(f"{where}: damaged: its {_MANIFEST_NAME} is that of {manifest.name:.80}")
            return manifest
        except ValueError as error:
            form, version = said.get("format"), said.get("distgan")
            if (isinstance(form, str) and form not in _FORMATS) or (isinstance(version, str) and _is_other(version)):
                raise _of_other_version(where, version, str(form)) from None
            first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ["format"], "msg": "missing"}
            place = ".".join(map(str, first["loc"]))
            raise DamagedError(f"{where}: damaged: its {_MANIFEST_NAME}: {place:.80}: {first['msg']:.80}") from None

    def _wanted(self, manifest: Manifest, where: str) -> dict[str, Any] | None:
        """The tree of `TensorSpec` that the run of a manifest saves at its progress; None for code of others."""
        own = own_names(manifest.config)
        if not own.items() <= self._own.items():
            return None
        try:
            config = build_config(manifest.config, where if own else "its configuration", trust_code=True)
            networks = build_networks(config, torch.device("meta"))
        except UserError as error:
            if own:
                raise
            raise self._unfit(manifest, where, str(error)) from None
        generator, discriminator = (
            specs_of(part.state_dict()) for part in (networks.generator, networks.discriminator)
        )
        moved, optimizer = Progress.from_dict(manifest.progress), config.optimizer
        moments = {
            "generator_optimizer": moment_specs(optimizer.generator, networks.generator) if moved.step else {},
            "discriminator_optimizer": moment_specs(optimizer.discriminator, networks.discriminator)
            if moved.critic_updates
            else {},
        }
        return {
            "generator": generator,
            "discriminator": discriminator,
            "ema": generator,
            **{name: {"state": state, "param_groups": None} for name, state in moments.items()},
        }

    def _compare(self, manifest: Manifest, where: str, found: Any, wanted: dict[str, Any]) -> None:
        """Raises DamagedError for tensors that are others than those that are wanted."""
        if own_names(manifest.config):
            wanted = {name: _without_unused(part, found.get(name)) for name, part in wanted.items()}
        differs = difference(found, wanted)
        if differs is not None:
            raise self._unfit(manifest, where, f"its tensors are not those of its networks: {differs}")

    def _unfit(self, manifest: Manifest, where: str, reason: str) -> UserError:
        if _is_other(manifest.distgan):
            return _of_other_version(where, manifest.distgan, reason)
        return DamagedError(f"{where}: damaged: {reason}")


def _is_other(version: str) -> bool:
    return version != distgan.__version__


def _of_other_version(where: str, version: object, reason: str) -> UserError:
    return UserError(
        f"{where}: not a checkpoint that distgan {distgan.__version__} can read (written by version {version}: "
        f"{reason}); use that version, or start a new run with another --name"
    )


def _without_unused(wanted: Mapping[str, Any], found: Any) -> Mapping[str, Any]:
    """Without moments of single parameters: networks of a user's own may have some that take no part."""
    state = found.get("state") if isinstance(found, Mapping) else None
    if "state" not in wanted or not isinstance(state, Mapping) or not state:
        return wanted
    return {**wanted, "state": {number: spec for number, spec in wanted["state"].items() if number in state}}


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
    ) as error:
        raise UserError(
            f"{checkpoint}: its tensors are not those of the run's networks ({' '.join(str(error).split()):.120}); "
            f"give another checkpoint, or start a new run with another --name"
        ) from error


def _first_of(wanted: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def _copied(value: Any) -> Any:
    """A deep copy whose tensors are on the CPU and nobody else's."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
