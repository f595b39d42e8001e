"""The tracker `tensorboard`: scalars, sample grids and the configuration in `tensorboard/`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from PIL import Image
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from distgan.tracking.scalars import images_at, scalars
from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import Event, RunStarted

_FLUSH_SECONDS = 10

_FILE_BYTES = 8 * 2**20

_print_exception = threading.excepthook


def _print_unless_raised_again(arguments: threading.ExceptHookArgs) -> None:
    """No traceback of TensorBoard's thread: its next call raises the same error, as on a full disk."""
    if not isinstance(arguments.thread, event_file_writer._AsyncWriterThread):
        _print_exception(arguments)


class TensorBoardTracker(Tracker):
    """Writes TensorBoard event files. Their steps are whole numbers: real images, 1,000 for a kimg.

    A new file begins after 8 MiB, so that an upload never sends the pictures of a long run again, and after an error.
    What older files have after the place where this session begins is hidden.
    """

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._folder = run.folder / "tensorboard"
        self._first: int | None = None if run.first_step else 0
        self._last = 0
        self._writer: SummaryWriter | None = None
        threading.excepthook = _print_unless_raised_again

    def event(self, event: Event) -> None:
        """Takes the numbers of `tracking.scalars`, and the configuration as text."""
        if isinstance(event, RunStarted):
            place, text = images_at(event.kimg), f"```yaml\n{event.configuration}```"
            self._first = place + 1 if event.resumed else 0
            self._write(lambda writer: writer.add_text("configuration", text, place), place)
        elif values := scalars(event):
            place = images_at(values["progress/kimg"])

            def add(writer: SummaryWriter) -> None:
                for name, value in values.items():
                    writer.add_scalar(name, value, place)

            self._write(add, place)

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        pixels, place = np.atleast_3d(np.asarray(grid)), images_at(kimg)
        self._write(lambda writer: writer.add_image("samples", pixels, place, dataformats="HWC"), place)

    def flush(self) -> None:
        if self._writer is None:
            return
        self._write(lambda writer: writer.flush(), self._last)
        newest = max(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        if newest.stat().st_size > _FILE_BYTES:
            self._writer.close()  # the next value opens another file

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, write: Callable[[SummaryWriter], None], place: int) -> None:
        if self._writer is None:
            first = place if self._first is None else self._first
            self._writer = SummaryWriter(str(self._folder), purge_step=first, flush_secs=_FLUSH_SECONDS)
        self._last = place
        try:
            write(self._writer)
        except Exception:
            # The writer's thread has ended with the error.
            writer, self._writer, self._first = self._writer, None, place
            with suppress(Exception):
                writer.close()
            raise
