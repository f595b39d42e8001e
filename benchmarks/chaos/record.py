"""What a run under observation writes into local files beside its own: each step, and the samples of each batch.

It is imported by each worker, as the tracker that a run's configuration names.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

from distgan.data.stream import BatchStream, Group
from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import Event, StepMetrics
from distgan.training.loop import Trainer

# The folder of these files.
FOLDER = "DISTGAN_CHAOS_FOLDER"

_STEP = struct.Struct("<qd")


def label(url: str) -> str:
    """A name for the files of a run: its own, that of its search before it."""
    *_, search, folder, name = ["", "", *url.split("/")]
    return f"{search}.{name}" if folder == "trials" else name


class StepFile(Tracker):
    """Appends each step's number, with the time of day, to `NAME.steps`."""

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._file = Path(os.environ[FOLDER], f"{label(run.url)}.steps")

    def event(self, event: Event) -> None:
        if isinstance(event, StepMetrics):
            _append(self._file, _STEP.pack(event.step, time.time()))


class RecordedBatches:
    """Appends `BATCH GROUP CHECKSUM` of the images that each group of this worker gets to `NAME.samples`."""

    def __init__(self, batches: BatchStream, trainer: Trainer) -> None:
        self._batches, self._groups = batches, trainer.step.groups.local
        self._number = trainer.state.progress.batches
        self._file = Path(os.environ[FOLDER], f"{label(trainer.spec.run.url)}.samples")
        self.close = batches.close

    def next(self) -> list[Group]:
        batch = self._batches.next()
        checksums = [zlib.crc32(group.images.numpy().tobytes()) for group in batch]
        lines = [f"{self._number} {group} {found:08x}\n" for group, found in zip(self._groups, checksums, strict=True)]
        _append(self._file, "".join(lines).encode())
        self._number += 1
        return batch


_open_batches = Trainer._open_batches
Trainer._open_batches = lambda self: RecordedBatches(_open_batches(self), self)  # type: ignore[method-assign, assignment, return-value]


def read_steps(file: Path) -> list[tuple[int, float]]:
    """The steps in the order in which they were logged, repeated ones again, with their times."""
    data = file.read_bytes() if file.exists() else b""
    return list(_STEP.iter_unpack(data[: len(data) // _STEP.size * _STEP.size]))


def read_samples(file: Path) -> dict[tuple[int, int], set[str]]:
    """The checksums of a batch and group; repeated batches have one."""
    found: dict[tuple[int, int], set[str]] = {}
    for line in file.read_text().splitlines():
        batch, group, checksum = line.split()
        found.setdefault((int(batch), int(group)), set()).add(checksum)
    return found


def _append(file: Path, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
