"""The mailbox of a run: an actor without torch, to which the workers report, and which counts what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distgan.errors import UserError
from distgan.launch.hangs import Beat, HangWatch
from distgan.launch.mailbox import Mailbox, create_mailbox
from distgan.text import plural
from distgan.tracking.formatting import kimg_count
from distgan.training.events import Attempt, CheckpointSaved, RunStarted, StepMetrics, WorkersLost

if TYPE_CHECKING:
    from distgan.training.run_spec import RunSpec


class KeptSteps:
    """Counts the seconds in steps of groups of workers that the next group did not repeat.

    Attributes:
        before: of the groups before the present one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._seconds = self._kimg = self.before = 0.0
        self._rows: list[tuple[float, float]] = []  # kimg, and the seconds up to there
        self._saved: dict[float, float] = {}  # those of checkpoints

    @property
    def elapsed(self) -> float:
        return self._clock() - self._began

    def add(self, event: object) -> None:
        if isinstance(event, RunStarted):
            self._seconds = self.before = self._saved.get(event.kimg, 0.0)
            self._kimg, self._rows = event.kimg, [(event.kimg, self._seconds)]
        elif isinstance(event, StepMetrics) and event.images_per_second > 0:
            self._seconds += 1000 * (event.kimg - self._kimg) / event.images_per_second
            self._kimg = event.kimg
            self._rows.append((event.kimg, self._seconds))
        elif isinstance(event, CheckpointSaved):  # rows of later steps may have come before
            reached = [row for row in self._rows if row[0] <= event.kimg]
            if reached:  # else it is of an earlier group of workers
                self._saved[event.kimg] = reached[-1][1]
                self._rows = self._rows[len(reached) - 1 :]


class RunMailbox(Mailbox):
    """A mailbox that also counts the failures of a run's workers since its newest checkpoint, and finds their hangs.

    Args:
        run_url: names the run in the error.
        most: restarts without a new checkpoint, `scale.max_failures`.
        hang_s: how long no worker need make progress, `scale.hang_minutes`.
    """

    def __init__(self, run_url: str, most: int, hang_s: float = 300.0) -> None:
        super().__init__()
        self._run_url, self._most = run_url, most
        self._hangs = HangWatch(hang_s)
        self._sigterms: dict[int, int] = {}
        self._terminated: list[str] = []
        self._kimg, self._count = 0.0, 0
        self._goodput = KeptSteps()
        self._attempts: list[Attempt] = []

    def put(self, event: object) -> None:
        super().put(event)
        self._goodput.add(event)
        if isinstance(event, RunStarted):
            self._kimg = event.kimg
            self._restart()
            self._attempts.append(Attempt(event.workers, event.kimg))
        elif isinstance(event, CheckpointSaved):
            self._kimg, self._count = event.kimg, 0

    def renew(self) -> None:
        """Another process takes over the run: forgets events that nobody has taken, and the request to stop."""
        self._restart()
        self._events, self._stop = [], False

    def _restart(self) -> None:
        """Forgets the group of workers."""
        self._hangs.restart()
        self._sigterms, self._terminated = {}, []

    def beat(self, rank: int, beat: Beat) -> bool:
        """Takes a worker's sign of life. Returns whether the worker has to end, as its group hangs."""
        if beat.sigterms > self._sigterms.get(rank, 0):
            self._terminated.append(beat.place)
        self._sigterms[rank] = beat.sigterms
        return self._hangs.beat(rank, beat)

    def terminated(self) -> list[str]:
        """The workers that were sent SIGTERM since the last call."""
        found, self._terminated = self._terminated, []
        return found

    def attempts(self) -> list[Attempt]:
        return self._attempts

    def kept_before(self) -> tuple[float, float]:
        """Seconds in steps of earlier groups of workers that were kept, and seconds since the run was started."""
        return self._goodput.before, self._goodput.elapsed

    def lost(self, reason: str, counts: bool) -> str | None:
        """Records that workers were lost. Returns None where they restart, else the error that ends the run, as text.

        The `reason` is another one where they were ended because of a hang.
        """
        if self._hangs.hang is not None:
            reason, counts = self._hangs.hang, True
        self._restart()
        if self._attempts and self._attempts[-1].failure is None:
            self._attempts[-1] = replace(self._attempts[-1], failure=reason)
        else:  # lost before they had begun
            self._attempts.append(Attempt(0, self._kimg, reason))
        self._count += counts
        where = f"{kimg_count(self._kimg)} kimg"
        if self._count <= self._most:
            number = f"restart {self._count} of {self._most} without a new checkpoint" if counts else "restarting"
            super().put(WorkersLost(f"{reason}; {number}, from {where}"))
            return None
        tried = (
            f"restarted {plural(self._most, 'time')} without a new checkpoint (scale.max_failures)"
            if self._most
            else "not restarted (scale.max_failures=0)"
        )
        final = f"{self._run_url}: {reason}; {tried}; look at that node; the same command resumes from {where}"
        self.put_error(UserError(final))
        return final


def create_run_mailbox(spec: RunSpec) -> Any:
    """A handle to a new `RunMailbox` of a run."""
    scale = spec.config.scale
    return create_mailbox(RunMailbox, spec.run.url, scale.max_failures, 60 * scale.hang_minutes)
