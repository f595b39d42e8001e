"""What a run leaves behind in its folder: configuration, metrics, TensorBoard events, samples, curves, summary."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from distgan.bounds import MOST_TEXT_BYTES, parse_json
from distgan.errors import UserError
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import NotFoundError, Storage, translate_errors
from distgan.tracking.grids import image_grid, png_bytes
from distgan.tracking.jsonl import event_row, lines_until, read_rows, to_json
from distgan.tracking.tensorboard import TensorBoardLog
from distgan.tracking.upload import UploadQueue
from distgan.training.events import (
    CheckpointSaved,
    EvaluationResult,
    Event,
    Notice,
    RunFinished,
    RunStarted,
    StepMetrics,
    Summary,
)
from distgan.training.health import HealthWarning

_METRICS = "metrics.jsonl"

_SUMMARY = "summary.json"

_TENSORBOARD = "tensorboard"

_PICTURE_SIZE = 64


class RunFolder:
    """The `Reporter` that writes into a run's storage:

    - `config.yaml`: the whole configuration of the newest session;
    - `metrics.jsonl`: one JSON object a line for each event (`distgan.tracking.jsonl`);
    - `tensorboard/`: scalars and sample grids by training step;
    - `samples/kimg-000123.400.png`: sample grids;
    - `curves.png` and `summary.json`: at the end, unless those of the same end are there: then they stay, with the
      times and the speed of the session that trained.

    A local folder is written directly. For remote storage the files are written to a temporary folder, from
    which `flush` and `close` upload them. Nothing else in the storage is touched. Threads may share it.

    A run does without all of it: what cannot be written is told, once until it works again, and is written then.

    Args:
        storage: the run's folder.
        resume_step: the training step that the run goes on from: metrics of later steps are dropped. None for
            a run that begins: metrics that an earlier one left in the folder are dropped.
        say: is told what cannot be written.
        retry: what is done where storage is away at the start.

    Raises:
        UserError: by the constructor, where the folder cannot be read, or is local and cannot be written.
    """

    def __init__(
        self,
        storage: Storage,
        resume_step: int | None,
        say: Callable[[str], None] = lambda _: None,
        retry: Retry = NO_RETRY,
    ) -> None:
        self._lock, self._say = threading.Lock(), say
        self._earlier_summary = {} if resume_step is None else retry(lambda: _read_summary(storage))
        kept = retry(lambda: _kept_lines(storage, resume_step))
        self._mirror: UploadQueue | None = None
        if storage.local_path is None:
            self._mirror = UploadQueue(storage, say)
            self._files = Storage.open(str(self._mirror.folder))
        else:
            self._files = storage
        self._folder = Path(self._files.root)
        self._files.write_bytes(_METRICS, kept)
        with translate_errors(str(self._folder)):
            self._metrics = (self._folder / _METRICS).open("rb+", buffering=0)
        self._good_bytes, self._rows = len(kept), b""
        self._unwritten: dict[str, bytes] = {}
        self._first_step = 0 if resume_step is None else resume_step + 1
        self._scalars: TensorBoardLog | None = None
        self._failing: set[str] = set()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def event(self, event: Event) -> None:
        """Write the event down. Drawing the curves of a `RunFinished` takes about a second."""
        with self._lock:
            if isinstance(event, RunStarted):
                self._write("config.yaml", event.configuration.encode())
            if isinstance(event, StepMetrics | EvaluationResult | HealthWarning | CheckpointSaved):
                self._rows += f"{to_json(event_row(event))}\n".encode()
                self._try(_METRICS, self._write_rows)
            if isinstance(event, StepMetrics):
                self._with_scalars(lambda scalars: scalars.trained(event), event.step)
            elif isinstance(event, EvaluationResult):
                self._with_scalars(lambda scalars: scalars.evaluated(event), event.step)
            elif isinstance(event, RunFinished):
                self._try("curves.png", lambda: self._finish(event.summary))

    def samples(self, step: int, kimg: float, images: Tensor, columns: int | None = None) -> None:
        """Save uint8 (N, C, H, W) as one grid; images smaller than 64 pixels are enlarged in the picture."""
        picture = image_grid(images, columns, scale=max(1, _PICTURE_SIZE // images.shape[-1]))
        with self._lock:
            self._write(f"samples/kimg-{kimg:010.3f}.png", png_bytes(picture))
            self._with_scalars(lambda scalars: scalars.picture(step, picture), step)

    def stop_requested(self) -> bool:
        """Never: a folder asks nothing."""
        return False

    def evaluated(self, event: EvaluationResult) -> None:
        """Nothing: a folder has nobody to meet."""

    def flush(self) -> None:
        """Write everything to the disk, and begin to upload the changed files where the storage is remote."""
        with self._lock:
            self._write_all()
            if self._mirror is not None:
                self._try("", self._mirror.flush)

    def close(self, retry: Retry = NO_RETRY) -> None:
        """Close the files; for remote storage wait for the last upload and remove the temporary folder."""
        with self._lock:
            mirror, self._mirror = self._mirror, None
            if not self._metrics.closed:
                self._write_all()
                self._metrics.close()
                if self._scalars is not None:
                    self._try(_TENSORBOARD, self._scalars.close)
            if mirror is not None:
                mirror.close(retry)

    def _write(self, name: str, data: bytes) -> None:
        self._unwritten[name] = data
        self._try(name, self._write_files)

    def _write_all(self) -> None:
        self._try("samples", self._write_files)
        self._try(_METRICS, self._write_rows)
        if self._scalars is not None:
            self._with_scalars(lambda scalars: scalars.flush())

    def _write_files(self) -> None:
        for name in list(self._unwritten):
            self._files.write_bytes(name, self._unwritten[name])
            del self._unwritten[name]

    def _write_rows(self) -> None:
        """All rows that are not in the file yet, in the place of what a failed attempt has left there."""
        if self._rows:
            self._metrics.truncate(self._good_bytes)
            self._metrics.seek(self._good_bytes)
            if self._metrics.write(self._rows) != len(self._rows):
                raise OSError(errno.ENOSPC, "written in part")
            self._good_bytes, self._rows = self._good_bytes + len(self._rows), b""

    def _with_scalars(self, write: Callable[[TensorBoardLog], None], step: int = 0) -> None:
        def attempt() -> None:
            if self._scalars is None:
                self._scalars = TensorBoardLog(self._folder / _TENSORBOARD, self._first_step)
            write(self._scalars)

        if not self._try(_TENSORBOARD, attempt) and self._scalars is not None:
            # Its thread has ended with the error; the next event begins another file.
            scalars, self._scalars, self._first_step = self._scalars, None, step
            with suppress(Exception):
                scalars.close()

    def _try(self, name: str, action: Callable[[], None]) -> bool:
        """Whether it could be done; what could not is told, once until all can be done again."""
        try:
            with translate_errors(str(self._folder / name)):
                action()
        except UserError as error:
            if not self._failing:
                self._say(f"{error}; training goes on without it")
            self._failing.add(name)
            return False
        self._failing.discard(name)
        return True

    def _finish(self, summary: Summary) -> None:
        told, ended = self._earlier_summary, {key: getattr(summary, key) for key in ("kimg", "reason", "metric")}
        if summary.kimg == summary.resumed_at_kimg and ended.items() <= told.items():
            return  # begun again after its end
        self._files.write_bytes(_SUMMARY, (to_json(summary.as_dict(), indent=1) + "\n").encode())
        from distgan.tracking.plots import draw_curves  # with matplotlib, which only the end of a run needs

        rows = read_rows(self._folder / _METRICS)
        draw_curves(rows, self._folder / "curves.png", title=summary.name, floor=summary.floor)


def _read_summary(storage: Storage) -> dict[str, Any]:
    """The summary of an earlier session; empty where there is none that can be read."""
    try:
        found = parse_json(storage.read_bytes(_SUMMARY, most=MOST_TEXT_BYTES))
    except (NotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _kept_lines(storage: Storage, resume_step: int | None) -> bytes:
    if resume_step is None:
        return b""
    try:
        return lines_until(storage.read_bytes(_METRICS), resume_step)
    except NotFoundError:
        return b""


class RunReporter:
    """Implements `training.events.Reporter` for rank 0, and does nothing on the others.

    `sink` is handed each event (a display, or the way to one); `stop_requested` is asked by the loop.
    """

    def __init__(self, run: Storage, sink: Callable[[Event], None], stop_requested: Callable[[], bool]) -> None:
        self._run, self._sink, self._stop_requested = run, sink, stop_requested
        self._retry = Retry(self._say, stop_requested)
        self._folder: RunFolder | None = None

    def event(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._sink(event)
            return
        if isinstance(event, RunStarted):
            self._folder = RunFolder(self._run, event.step if event.resumed else None, self._say, self._retry)
        assert self._folder is not None
        self._folder.event(event)
        if isinstance(event, RunStarted | CheckpointSaved | EvaluationResult | RunFinished):
            self._folder.flush()
        if isinstance(event, RunFinished):
            self._close(Retry(self._say))
        self._sink(event)

    def samples(self, step: int, kimg: float, images: Tensor, columns: int | None = None) -> None:
        assert self._folder is not None
        self._folder.samples(step, kimg, images, columns)

    def stop_requested(self) -> bool:
        return self._stop_requested()

    def evaluated(self, event: EvaluationResult) -> None:
        """Nothing to meet for."""

    def _say(self, text: str) -> None:
        self._sink(Notice(text))

    def close(self) -> None:
        """Brings everything to the run's storage, unless it is away: then it ended the run."""
        self._close(NO_RETRY)

    def _close(self, retry: Retry) -> None:
        if self._folder is not None:
            folder, self._folder = self._folder, None
            folder.close(retry)
