"""A run's folder: its record, what its trackers write, and the upload to remote storage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Self

from PIL import Image
from torch import Tensor

from distgan.config.plugins import error_text, is_custom
from distgan.errors import UserError
from distgan.storage.retry import NO_RETRY, WAIT_S, Retry
from distgan.storage.storage import Storage, translate_errors
from distgan.tracking.grids import enlargement, image_grid, with_column_names
from distgan.tracking.jsonl import last_checkpoint
from distgan.tracking.record import METRICS, RunRecord, earlier_lines, read_summary
from distgan.tracking.tracker import DEFAULT, TrackedRun, Tracker, tracker_class
from distgan.tracking.upload import UploadQueue
from distgan.training.checkpoints import checkpoint_name
from distgan.training.events import (
    CheckpointSaved,
    EvaluationResult,
    Event,
    Notice,
    PhaseStarted,
    RunFinished,
    RunStarted,
)

_FILES = "files"


class RunFolder:
    """Hands a run's events to its record (`RunRecord`) and its trackers, and never fails.

    A local folder is written directly. For remote storage the files are written to a temporary folder, from
    which `flush` and `close` upload them. Nothing else in the storage is touched. Threads may share it.

    A failure to write is logged once; the data are written when writing works again. A tracker that fails is logged
    once.

    Args:
        storage: the run's folder.
        resume_step: the training step that the run resumes from: metrics of later steps are dropped. None for a new
            run: metrics that an earlier one left in the folder are dropped.
        log: called with what cannot be written.
        retry: policy where storage is unavailable at the start.
        trackers: names (`config.plugins.TRACKERS`) or `module:Class`.

    Attributes:
        last_checkpoint: name of the last one of which earlier metrics have a row.

    Raises:
        UserError: by the constructor, where the folder cannot be read, or is local and cannot be written, and for an
            unknown tracker.
    """

    def __init__(
        self,
        storage: Storage,
        resume_step: int | None,
        log: Callable[[str], None] = lambda _: None,
        retry: Retry = NO_RETRY,
        trackers: Sequence[str] = DEFAULT,
    ) -> None:
        self._lock, self._log = threading.Lock(), log
        self._failing: set[str] = set()
        self._reported: set[str] = set()
        classes = {name: tracker_class(name) for name in trackers}
        summary = {} if resume_step is None else retry(lambda: read_summary(storage))
        earlier = retry(lambda: earlier_lines(storage, resume_step))
        self.last_checkpoint = last_checkpoint(earlier)
        self._uploads = UploadQueue(storage, log) if storage.local_path is None else None
        files = storage if self._uploads is None else Storage.open(str(self._uploads.folder))
        self._run = TrackedRun(storage, files, 0 if resume_step is None else resume_step + 1, summary)
        self._trackers: dict[str, Tracker] = {METRICS: RunRecord(self._run, earlier)}
        for name, each in classes.items():
            self._try(name, lambda name=name, each=each: self._trackers.update({name: each(self._run)}))  # type: ignore[misc]
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def event(self, event: Event) -> None:
        """Records the event. The curves of a `RunFinished` take about a second."""
        with self._lock:
            self._for_each(lambda tracker: tracker.event(event))

    def samples(
        self, step: int, kimg: float, images: Tensor, columns: int | None = None, names: Sequence[str] = ()
    ) -> None:
        """Records uint8 (N, C, H, W) as a grid; images smaller than 64 pixels are enlarged."""
        self._show(images, columns, names, lambda tracker, grid: tracker.samples(step, kimg, grid))

    def real_images(self, images: Tensor, columns: int | None = None, names: Sequence[str] = ()) -> None:
        """Records real images as a grid like that of the samples."""
        self._show(images, columns, names, lambda tracker, grid: tracker.real_images(grid))

    def _show(
        self,
        images: Tensor,
        columns: int | None,
        names: Sequence[str],
        action: Callable[[Tracker, Image.Image], None],
    ) -> None:
        def show() -> None:
            grid = _grid(images, columns, names)
            self._for_each(lambda tracker: action(tracker, grid))

        with self._lock:
            self._try("samples", show)

    def flush(self) -> None:
        """Writes everything to the disk, and starts to upload changed files to remote storage."""
        with self._lock:
            self._for_each(lambda tracker: tracker.flush())
            if self._uploads is not None:
                self._try(_FILES, self._uploads.flush)

    def upload(self) -> None:
        """Uploads what is written to remote storage, and waits for it. Logs a failure."""
        if self._uploads is not None:
            self._try(_FILES, self._uploads.upload)

    def close(self, retry: Retry = NO_RETRY, newest: str | None = None) -> None:
        """Closes the files; waits for the last upload to remote storage and removes the temporary folder.

        What cannot be uploaded is kept for the next session, which resumes from the checkpoint `newest`.
        """
        with self._lock:
            uploads, self._uploads = self._uploads, None
            if not self._closed:
                self._closed = True
                self._for_each(lambda tracker: tracker.flush())
                self._for_each(lambda tracker: tracker.close())
            if uploads is not None:
                uploads.close(retry, newest)

    def _for_each(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._try(name, lambda tracker=tracker: action(tracker))  # type: ignore[misc]
            self._try(_FILES, self._run.write_pending)

    def _try(self, name: str, action: Callable[[], None]) -> None:
        """Logs a failure: of the record and of files once until they work again, of a tracker once."""
        is_tracker = name not in {METRICS, _FILES}
        try:
            with nullcontext() if is_custom(name) else translate_errors(str(self._run.folder / name)):
                action()
        except Exception as error:  # noqa: BLE001 - training continues
            reason = str(error) if isinstance(error, UserError) else f"it raised {error_text(error)}"
            if not self._failing and name not in self._reported:
                about = f"tracker {name}: " if is_tracker else ""
                self._log(f"{about}{reason}; training continues without it")
                if is_tracker:
                    self._reported.add(name)
            if not is_tracker:
                self._failing.add(name)
        else:
            self._failing.discard(name)


def _grid(images: Tensor, columns: int | None, names: Sequence[str]) -> Image.Image:
    grid = image_grid(images, columns, scale=enlargement(images.shape[-1]))
    return with_column_names(grid, names) if names else grid


class RunReporter:
    """Implements `training.events.Reporter` for rank 0, and does nothing on the others.

    `sink` is called with each event (a display, or the way to one); the loop calls `stop_requested`. `trackers` are
    those of a `RunFolder`.
    """

    def __init__(
        self,
        run: Storage,
        sink: Callable[[Event], None],
        stop_requested: Callable[[], bool],
        trackers: Sequence[str] = DEFAULT,
        patience_s: float = WAIT_S,
    ) -> None:
        self._run, self._sink, self._stop_requested, self._trackers = run, sink, stop_requested, trackers
        self._patience_s = patience_s
        self._retry = Retry(self._log, stop_requested, wait_s=patience_s)
        self._folder: RunFolder | None = None
        self._newest: str | None = None

    def event(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            self._newest = event.name
        if isinstance(event, RunStarted):
            self._open(event)
        if self._folder is not None:
            self._folder.event(event)
        else:
            assert isinstance(event, Notice | PhaseStarted), "a run's first event is RunStarted"
        if self._folder is not None and isinstance(
            event, RunStarted | CheckpointSaved | EvaluationResult | RunFinished
        ):
            self._folder.flush()
        if isinstance(event, RunFinished):
            self._close(Retry(self._log, wait_s=self._patience_s))
        self._sink(event)

    def _open(self, event: RunStarted) -> None:
        step = event.step if event.resumed else None
        self._folder = RunFolder(self._run, step, self._log, self._retry, self._trackers)
        if step is not None:
            self._newest = checkpoint_name(step)
            if self._folder.last_checkpoint != self._newest:  # a kill before its row was written
                self._folder.event(CheckpointSaved(step, event.kimg, self._newest))

    def samples(
        self, step: int, kimg: float, images: Tensor, columns: int | None = None, names: Sequence[str] = ()
    ) -> None:
        assert self._folder is not None
        self._folder.samples(step, kimg, images, columns, names)

    def real_images(self, images: Tensor, columns: int | None = None, names: Sequence[str] = ()) -> None:
        assert self._folder is not None
        self._folder.real_images(images, columns, names)

    def flush(self) -> Callable[[], None]:
        folder = self._folder
        assert folder is not None
        folder.flush()
        return folder.upload

    def stop_requested(self) -> bool:
        return self._stop_requested()

    def save_requested(self) -> str | None:
        """None: only a launcher knows of reasons."""
        return None

    def evaluated(self, event: EvaluationResult) -> None:
        """Does nothing: there is no launcher to inform."""

    def _log(self, text: str) -> None:
        self._sink(Notice(text))

    def close(self) -> None:
        """Uploads the rest, unless the storage is unavailable: then that has ended the run."""
        self._close(NO_RETRY)

    def _close(self, retry: Retry) -> None:
        if self._folder is not None:
            folder, self._folder = self._folder, None
            folder.close(retry, self._newest)
