"""A run's numbers and pictures for TensorBoard."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.summary.writer import event_file_writer
from torch.utils.tensorboard import SummaryWriter

from distgan.training.events import EvaluationResult, StepMetrics

_FLUSH_SECONDS = 10

_FILE_BYTES = 8 * 2**20

_print_exception = threading.excepthook


def _print_unless_raised_again(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread raises what its next call raises too: its traceback on a full disk is one too many."""
    if not isinstance(arguments.thread, event_file_writer._AsyncWriterThread):
        _print_exception(arguments)


class TensorBoardLog:
    """Writes TensorBoard event files into a folder; the global step is the training step.

    A file that has grown past 8 MiB is followed by a new one, so that a copy of the folder to remote storage
    never sends the pictures of a long run again and again.

    Args:
        first_step: what older files in the folder hold from this step on is hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder = folder
        threading.excepthook = _print_unless_raised_again
        self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=_FLUSH_SECONDS)

    def trained(self, event: StepMetrics) -> None:
        """Each term under its own name, the speed and the kimg."""
        values = event.terms | {
            "progress/kimg": event.kimg,
            "progress/images_per_second": event.images_per_second,
        }
        self._add(values, event.step)

    def evaluated(self, event: EvaluationResult) -> None:
        """The distance and the best so far, if there is one, under the metric's name; the other measures, diversity."""
        name = f"distance/{event.metric}"
        best = {} if event.best is None else {f"{name}_best": event.best}
        more = {f"measure/{name}": value for name, value in event.more.items()}
        if event.diversity is not None:
            more["measure/diversity"] = event.diversity
        self._add({name: event.value, **best, **more, "progress/kimg": event.kimg}, event.step)

    def picture(self, step: int, picture: Image.Image) -> None:
        """A grid of samples."""
        pixels = np.atleast_3d(np.asarray(picture))
        self._writer.add_image("samples", pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Write what is queued to the disk."""
        self._writer.flush()
        newest = max(self._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        if newest.stat().st_size > _FILE_BYTES:
            self._writer.close()

    def close(self) -> None:
        """Write what is queued to the disk and close the file."""
        self._writer.close()

    def _add(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
