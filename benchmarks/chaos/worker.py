"""Writes each step of a run under observation, and the samples of each batch, into local files beside its own.

Only the processes of such runs import it, by the name of the tracker in their configuration: it changes `Trainer`.
"""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

from benchmarks.chaos.record import FOLDER, STEP, label
from distgan.data.stream import BatchStream, Group
from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import Event, StepMetrics
from distgan.training.loop import Trainer


class StepFile(Tracker):
    """Appends each step's number, with the time of day, to `NAME.steps`."""

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._file = Path(os.environ[FOLDER], f"{label(run.url)}.steps")

    def event(self, event: Event) -> None:
        if isinstance(event, StepMetrics):
            _append(self._file, STEP.pack(event.step, time.time()))


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


def _append(file: Path, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
