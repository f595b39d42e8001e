"""The files that every run has: config.yaml, metrics.jsonl and summary.json. Other parts of distgan read them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from PIL import Image

import distgan
from distgan.bounds import MOST_TEXT_BYTES, parse_json, parse_yaml
from distgan.config.plugins import custom_names, error_text
from distgan.errors import UserError
from distgan.storage.storage import NotFoundError, Storage, UnavailableError, translate_errors
from distgan.tracking.jsonl import Row, event_row, last_checkpoint, lines_until, parse_rows, to_json
from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import (
    Attempt,
    CheckpointSaved,
    EvaluationResult,
    Event,
    RunFinished,
    RunStarted,
    StepMetrics,
)
from distgan.training.health import HealthWarning
from distgan.training.own_modules import own_modules

METRICS, SUMMARY = "metrics.jsonl", "summary.json"

_TAIL_BYTES = 2**17


class RunRecord(Tracker):
    """Writes the three files. Rows of metrics that could not be written are written with the next event.

    Args:
        earlier: the lines of `metrics.jsonl` before the first step of this session.
    """

    def __init__(self, run: TrackedRun, earlier: bytes) -> None:
        """Raises UserError where the file cannot be written."""
        super().__init__(run)
        run.write(METRICS, earlier)
        run.write_pending()
        with translate_errors(str(run.folder)):
            self._metrics = (run.folder / METRICS).open("rb+", buffering=0)
        self._good_bytes, self._rows = len(earlier), b""

    def event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.run.write("config.yaml", event.configuration.encode())
            self._keep_own_modules(event)
        if isinstance(event, RunFinished) and not self.run.has_ended_before(event.summary):
            self.run.write(SUMMARY, (to_json(event.summary.as_dict(), indent=1) + "\n").encode())
        if isinstance(event, StepMetrics | EvaluationResult | HealthWarning | CheckpointSaved):
            self._rows += f"{to_json(event_row(event))}\n".encode()
        self.flush()

    def _keep_own_modules(self, event: RunStarted) -> None:
        """Copies a user's own modules; each version has a folder of its own."""
        for module in own_modules(custom_names(parse_yaml(event.configuration) or {}).values()):
            for path, content in module.files.items():
                self.run.write(f"{module.folder}/{path}", content)

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        self.flush()

    def flush(self) -> None:
        """Writes the rows that are not in the file yet, in place of what a failed attempt has left there."""
        if self._rows:
            self._metrics.truncate(self._good_bytes)
            self._metrics.seek(self._good_bytes)
            if self._metrics.write(self._rows) != len(self._rows):
                raise OSError(errno.ENOSPC, "written in part")
            self._good_bytes, self._rows = self._good_bytes + len(self._rows), b""

    def close(self) -> None:
        self._metrics.close()


@contextmanager
def recorded_failure(run: Storage, attempts: Callable[[], list[Attempt]] = list) -> Iterator[None]:
    """Where the block raises an error after a run has begun, `summary.json` says which, unless the storage is away.

    Args:
        attempts: the groups of workers so far.
    """
    try:
        yield
    except Exception as error:
        with suppress(Exception):  # the error itself is raised
            if not isinstance(error, UnavailableError) and run.exists("config.yaml"):
                rows = [asdict(attempt) for attempt in attempts()]
                text = str(error).partition("\n")[0] if isinstance(error, UserError) else error_text(error)
                found = {"reason": "error", "error": text, "attempts": rows, "distgan": distgan.__version__}
                run.write_bytes(SUMMARY, (to_json(found, indent=1) + "\n").encode())
        raise


def read_summary(storage: Storage) -> Row:
    """The summary in a run's folder as JSON values; empty where there is none that can be read."""
    try:
        found = parse_json(storage.read_bytes(SUMMARY, most=MOST_TEXT_BYTES))
    except (NotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def last_rows(storage: Storage) -> list[Row] | None:
    """Some hundred rows from the end of a run's metrics; None without the file."""
    try:
        size = storage.size(METRICS)
        data = storage.read_range(METRICS, max(0, size - _TAIL_BYTES), size) if size else b""
    except NotFoundError:
        return None
    return parse_rows(data)


def earlier_lines(storage: Storage, resume_step: int | None) -> bytes:
    """The lines of `metrics.jsonl` up to the step that a run resumes from; none for a new run.

    Raises UserError if a new run would drop the metrics of one whose checkpoints cannot be read.
    """
    try:
        data = storage.read_bytes(METRICS)
    except NotFoundError:
        return b""
    if resume_step is not None:
        return lines_until(data, resume_step)
    saved = last_checkpoint(data)
    if saved is not None:
        raise UserError(
            f"{storage.url}: its {METRICS} has checkpoints up to {saved:.40}, of which none can be read; restore "
            f"checkpoints/, or start a new run with another --name, or delete {METRICS} to begin this one anew"
        )
    return b""
