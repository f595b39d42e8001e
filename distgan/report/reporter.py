"""The reporter of a run: its folder gets everything, a sink gets the events."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from distgan.data.retry import NO_RETRY, Retry
from distgan.data.storage import Storage
from distgan.report.tracking import RunFolder
from distgan.training.events import Checkpointed, Evaluated, Event, Finished, Notice, Started


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
        if isinstance(event, Started):
            self._folder = RunFolder(self._run, event.step if event.resumed else None, self._say, self._retry)
        assert self._folder is not None
        self._folder.event(event)
        if isinstance(event, Started | Checkpointed | Evaluated | Finished):
            self._folder.flush()
        if isinstance(event, Finished):
            self._close(Retry(self._say))
        self._sink(event)

    def samples(self, step: int, kimg: float, images: Tensor, columns: int | None = None) -> None:
        assert self._folder is not None
        self._folder.samples(step, kimg, images, columns)

    def stop_requested(self) -> bool:
        return self._stop_requested()

    def evaluated(self, event: Evaluated) -> None:
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
