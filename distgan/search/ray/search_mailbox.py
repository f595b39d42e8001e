"""The mailbox of a search: progress of its trials, and the mailboxes of their runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distgan.launch.hangs import BEAT_S
from distgan.launch.mailbox import Mailbox
from distgan.launch.run_mailbox import RunMailbox


@dataclass(frozen=True)
class TrialStarted:
    """A trial has everything that it trains with: its next step is the first of this session."""

    number: int


@dataclass
class _Beating:
    """An actor that runs a trial, and when it gave its last sign of life."""

    actor: Any
    limit_s: float
    time: float


class SearchMailbox(Mailbox):
    """An actor without torch, to which the trials of a search report.

    It keeps the `RunMailbox` of each trial: this starts no process, and outlives the trial's actor.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._checked = clock, clock()
        self._runs: dict[int, RunMailbox] = {}
        self._beating: dict[int, _Beating] = {}

    def begin(self, number: int, run_url: str, most: int, hang_s: float, actor: Any | None) -> Exception | None:
        """A trial's run begins, or begins again in another actor. Returns the error for which it may not, if any.

        Args:
            actor: in which it runs; None for a run of Ray Train, whose events the trial takes.
        """
        run = self._run(number, run_url, most, hang_s)
        if run.error() is None:
            run.renew()
            if actor is not None:
                self._beating[number] = _Beating(actor, hang_s, self._clock())
        return run.error()

    def stop(self, number: int) -> None:
        """A trial's run of Ray Train saves its state and ends, if it has begun."""
        if number in self._runs:
            self._runs[number].ask_to_stop()

    def end(self, number: int) -> None:
        """The trial's run has ended, or its actor was lost."""
        self._beating.pop(number, None)

    def tell(self, number: int, method: str, *arguments: Any) -> Any:
        """Calls a method of a trial's `RunMailbox`."""
        run, beating = self._runs[number], self._beating.get(number)
        if beating is not None and method == "beat":
            beating.time = self._clock()
        answer = getattr(run, method)(*arguments)
        if beating is not None and method == "put":
            run.take()  # nobody else does
        return answer

    def lost(self, number: int, reason: str, counts: bool, run_url: str, most: int, hang_s: float) -> str:
        """Records that a trial's actor was lost, also before it began. Returns what `failure` does."""
        self.end(number)
        run = self._run(number, run_url, most, hang_s)
        if run.error() is None:
            run.lost(reason, counts)
        return self.failure(number)

    def failure(self, number: int) -> str:
        """The error for which a trial may not begin again, as a line; empty where it may."""
        error = self._runs[number].error() if number in self._runs else None
        return "" if error is None else str(error).partition("\n")[0]

    def frozen(self) -> list[Any]:
        """Actors whose processes have given no sign of life for too long: each is returned once.

        Call it every few seconds. A machine that slept freezes none.
        """
        now = self._clock()
        slept, self._checked = now - self._checked > 4 * BEAT_S, now
        if slept:
            for one in self._beating.values():
                one.time = now
        found = [number for number, one in self._beating.items() if now - one.time > one.limit_s]
        return [self._beating.pop(number).actor for number in found]

    def _run(self, number: int, run_url: str, most: int, hang_s: float) -> RunMailbox:
        return self._runs.setdefault(number, RunMailbox(run_url, most, hang_s))


class TrialMailbox:
    """A handle to the `RunMailbox` of a trial, as that of an actor: `mailbox.beat.remote(0, beat)`."""

    def __init__(self, search: Any, number: int) -> None:
        self._search, self._number = search, number

    def __getattr__(self, method: str) -> _Method:
        if method.startswith("_"):
            raise AttributeError(method)  # of pickle
        return _Method(self._search, self._number, method)


@dataclass(frozen=True)
class _Method:
    search: Any
    number: int
    name: str

    def remote(self, *arguments: Any) -> Any:
        return self.search.tell.remote(self.number, self.name, *arguments)
