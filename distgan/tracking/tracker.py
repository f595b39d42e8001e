"""The interface of trackers, which record a run's events: a class in a file here or in a user's module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from distgan.config.plugins import TRACKERS
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.storage.storage import NotFoundError, Storage
from distgan.training.events import Event, Summary


class TrackedRun:
    """The run that a tracker records.

    Attributes:
        folder: the run's folder on this machine. Files written there are uploaded if the run's storage is remote; they
            must be replaced atomically or only grow.
        url: of the run's storage; its last part is the run's name.
        first_step: records of this step and later ones are void: the run resumes before it. 0 for a new run.
        earlier_summary: summary of the session before as JSON values; empty where there is none.
    """

    def __init__(self, storage: Storage, files: Storage, first_step: int, earlier_summary: Mapping[str, Any]) -> None:
        self.folder, self.url, self.first_step = Path(files.root), storage.url, first_step
        self.earlier_summary, self._storage, self._files = earlier_summary, storage, files
        self._pending: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        """A file of an earlier session in the run's storage; None where there is none.

        Raises UserError where it cannot be read.
        """
        try:
            return self._storage.read_bytes(name)
        except NotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Writes a file below the folder in one step. A write that fails is repeated later."""
        self._pending[name] = data

    def write_pending(self) -> None:
        """Writes what `write` was given. Raises UserError where that fails."""
        for name in list(self._pending):
            self._files.write_bytes(name, self._pending[name])
            del self._pending[name]

    def has_ended_before(self, summary: Summary) -> bool:
        """Whether the session has trained nothing because an earlier session ended the run for the same reason."""
        end = {key: getattr(summary, key) for key in ("kimg", "reason", "metric")}
        return summary.kimg == summary.resumed_at_kimg and end.items() <= self.earlier_summary.items()


class Tracker:
    """Records a run. A subclass overrides what it needs; it is built and called on rank 0 alone.

    Calls come one at a time and must not block training. An exception is reported once and ends nothing.
    """

    def __init__(self, run: TrackedRun) -> None:
        self.run = run

    @classmethod
    def check(cls) -> None:
        """Raises UserError where the tracker cannot work: a package or a setting is missing. Contacts nobody.

        Called before the training starts, on the machine that starts it.
        """

    def event(self, event: Event) -> None:
        """Takes an event (`training.events`), the first of which is `RunStarted`, the last `RunFinished`."""

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        """Takes a grid of samples at fixed latents; images smaller than 64 pixels are enlarged, columns have names."""

    def real_images(self, grid: Image.Image) -> None:
        """Takes a grid of real images, laid out like the samples, at the beginning of a new run."""

    def flush(self) -> None:
        """Writes everything to the disk; called after evaluations and checkpoints."""

    def close(self) -> None:
        """Releases files and connections; called once, also where the run failed."""


# Of a configuration that names none.
DEFAULT: tuple[str, ...] = tuple(Config.model_fields["tracking"].default)


def check_trackers(names: Iterable[str]) -> None:
    """Raises UserError for the first tracker that cannot work here."""
    for name in names:
        tracker_class(name).check()


def tracker_class(name: str) -> type[Tracker]:
    """The registered or custom tracker `name`. Raises UserError for a class that is no tracker."""
    found: type[Any] = TRACKERS.resolve(name)
    if not issubclass(found, Tracker):
        raise UserError(f"tracking: {name}: it must be a subclass of distgan.tracking.tracker.Tracker")
    return found
