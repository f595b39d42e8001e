"""What a run leaves behind in its folder: configuration, metrics, TensorBoard events, samples, curves, summary."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from distgan.bounds import MOST_TEXT_BYTES, parse_json
from distgan.data.storage import NotFoundError, Storage, translate_errors
from distgan.health.states import Warned
from distgan.report.grids import image_grid, png_bytes
from distgan.report.mirror import Mirror
from distgan.report.rows import event_row, lines_until, read_rows, to_json
from distgan.report.scalars import Scalars
from distgan.training.events import Checkpointed, Evaluated, Event, Finished, Started, Summary, Trained

_METRICS = "metrics.jsonl"
_SUMMARY = "summary.json"
_PICTURE_SIZE = 64


class RunFolder:
    """The `Reporter` that writes into a run's storage:

    - `config.yaml`: the whole configuration of the newest session;
    - `metrics.jsonl`: one JSON object a line for each event (`distgan.report.rows`);
    - `tensorboard/`: scalars and sample grids by training step;
    - `samples/kimg-000123.400.png`: sample grids;
    - `curves.png` and `summary.json`: at the end, unless those of the same end are there: then they stay, with the
      times and the speed of the session that trained.

    A local folder is written directly. For remote storage the files are written to a temporary folder, from
    which `flush` and `close` upload them. Nothing else in the storage is touched. Threads may share it.

    Args:
        storage: the run's folder.
        resume_step: the training step that the run goes on from: metrics of later steps are dropped. None for
            a run that begins: metrics that an earlier one left in the folder are dropped.

    Raises:
        UserError: by any method, when the disk or the store refuses; failed uploads by the next call.
    """

    def __init__(self, storage: Storage, resume_step: int | None) -> None:
        self._lock = threading.Lock()
        self._earlier_summary = {} if resume_step is None else _read_summary(storage)
        kept = _kept_lines(storage, resume_step)
        self._mirror: Mirror | None = None
        if storage.local_path is None:
            self._mirror = Mirror(storage)
            self._files = Storage.open(str(self._mirror.folder))
        else:
            self._files = storage
        self._folder = Path(self._files.root)
        self._files.write_bytes(_METRICS, kept)
        with translate_errors(str(self._folder)):
            self._metrics = (self._folder / _METRICS).open("a", encoding="utf-8")
            self._scalars = Scalars(self._folder / "tensorboard", 0 if resume_step is None else resume_step + 1)

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
        """Write the event down. Drawing the curves of a `Finished` takes about a second."""
        with self._working():
            if isinstance(event, Started):
                self._files.write_bytes("config.yaml", event.configuration.encode())
            if isinstance(event, Trained | Evaluated | Warned | Checkpointed):
                self._metrics.write(to_json(event_row(event)) + "\n")
                self._metrics.flush()
            if isinstance(event, Trained):
                self._scalars.trained(event)
            elif isinstance(event, Evaluated):
                self._scalars.evaluated(event)
            elif isinstance(event, Finished):
                self._finish(event.summary)

    def samples(self, step: int, kimg: float, images: Tensor, columns: int | None = None) -> None:
        """Save uint8 (N, C, H, W) as one grid; images smaller than 64 pixels are enlarged in the picture."""
        picture = image_grid(images, columns, scale=max(1, _PICTURE_SIZE // images.shape[-1]))
        with self._working():
            self._files.write_bytes(f"samples/kimg-{kimg:010.3f}.png", png_bytes(picture))
            self._scalars.picture(step, picture)

    def stop_requested(self) -> bool:
        """Never: a folder asks nothing."""
        return False

    def evaluated(self, event: Evaluated) -> None:
        """Nothing: a folder has nobody to meet."""

    def flush(self) -> None:
        """Write everything to the disk, and begin to upload the changed files where the storage is remote."""
        with self._working():
            self._scalars.flush()
            if self._mirror is not None:
                self._mirror.flush()

    def close(self) -> None:
        """Close the files; for remote storage wait for the last upload and remove the temporary folder."""
        with self._lock:
            mirror, self._mirror = self._mirror, None
            try:
                with translate_errors(str(self._folder)):
                    self._metrics.close()
                    self._scalars.close()
            finally:
                if mirror is not None:
                    mirror.close()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One thread at a time, what failed before raised first, what fails now raised as the user's error."""
        with self._lock, translate_errors(str(self._folder)):
            if self._mirror is not None:
                self._mirror.check()
            yield

    def _finish(self, summary: Summary) -> None:
        told, ended = self._earlier_summary, {key: getattr(summary, key) for key in ("kimg", "reason", "metric")}
        if summary.kimg == summary.resumed_at_kimg and ended.items() <= told.items():
            return  # begun again after its end
        self._files.write_bytes(_SUMMARY, (to_json(summary.as_dict(), indent=1) + "\n").encode())
        from distgan.report.curves import draw_curves  # with matplotlib, which only the end of a run needs

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
