"""The tracker `tensorboard`: scalars and sample grids by training step in `tensorboard/`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from PIL import Image
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import EvaluationResult, Event, StepMetrics

_FLUSH_SECONDS = 10

_FILE_BYTES = 8 * 2**20

_print_exception = threading.excepthook


def _print_unless_raised_again(arguments: threading.ExceptHookArgs) -> None:
    """No traceback of TensorBoard's thread: its next call raises the same error, as on a full disk."""
    if not isinstance(arguments.thread, event_file_writer._AsyncWriterThread):
        _print_exception(arguments)


class TensorBoardTracker(Tracker):
    """Writes TensorBoard event files.

    A new file begins after 8 MiB, so that an upload never sends the pictures of a long run again, and after an error.
    Steps of older files from `run.first_step` on are hidden.
    """

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._folder = run.folder / "tensorboard"
        self._first_step = self._last_step = run.first_step
        self._writer: SummaryWriter | None = None
        threading.excepthook = _print_unless_raised_again

    def event(self, event: Event) -> None:
        """Terms of losses by name, speed and kimg; the monitored metric, its best so far, other metrics, diversity."""
        if isinstance(event, StepMetrics):
            values = {"progress/images_per_second": event.images_per_second}
            self._add(event.terms | {"progress/kimg": event.kimg} | values, event.step)
        elif isinstance(event, EvaluationResult):
            name = f"distance/{event.metric}"
            best = {} if event.best is None else {f"{name}_best": event.best}
            more = {f"measure/{name}": value for name, value in event.more.items()}
            if event.diversity is not None:
                more["measure/diversity"] = event.diversity
            self._add({name: event.value, **best, **more, "progress/kimg": event.kimg}, event.step)

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        pixels = np.atleast_3d(np.asarray(grid))
        self._write(lambda writer: writer.add_image("samples", pixels, step, dataformats="HWC"), step)

    def flush(self) -> None:
        if self._writer is None:
            return
        self._write(lambda writer: writer.flush(), self._last_step)
        newest = max(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        if newest.stat().st_size > _FILE_BYTES:
            self._writer.close()  # the next value opens another file

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add(self, values: dict[str, float], step: int) -> None:
        def add(writer: SummaryWriter) -> None:
            for name, value in values.items():
                if math.isfinite(value):
                    writer.add_scalar(name, value, step)

        self._write(add, step)

    def _write(self, write: Callable[[SummaryWriter], None], step: int) -> None:
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=self._first_step, flush_secs=_FLUSH_SECONDS)
        self._last_step = step
        try:
            write(self._writer)
        except Exception:
            # The writer's thread has ended with the error.
            writer, self._writer, self._first_step = self._writer, None, step
            with suppress(Exception):
                writer.close()
            raise
