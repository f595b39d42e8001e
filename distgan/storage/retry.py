"""Waits for storage that is unavailable for a while: the one retry policy of a run.

Each request is also retried within itself (`urls`), for failures of a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

from distgan.storage.storage_errors import UnavailableError

T = TypeVar("T")

# As `storage.patience_minutes`.
WAIT_S = 600.0

_FIRST_PAUSE_S = 0.5

_LONGEST_PAUSE_S = 10.0

_STOP_POLL_S = 1.0

_count_lock = threading.Lock()


class Retry:
    """Retries an action that raises `UnavailableError`, with growing pauses, for ten minutes; other errors pass.

    Threads may share an instance: it logs an outage once.

    Attributes:
        count: retries of all instances in this process.

    Args:
        log: receives a line with the reason when waiting begins.
        stop: whether to stop waiting; called once a second.
        wait_s: seconds after the first attempt in which further ones are made.
        clock: seconds, from any origin.
        wait: waits so many seconds, less after `cancel`; returns whether it was called.
    """

    count: ClassVar[int] = 0

    def __init__(
        self,
        log: Callable[[str], None] | None = None,
        stop: Callable[[], bool] | None = None,
        *,
        wait_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._log, self._stop, self._clock = log, stop, clock
        self._wait_s = WAIT_S if wait_s is None else wait_s
        self._canceled = threading.Event()
        self._wait = wait or self._canceled.wait
        self._waiting: set[object] = set()  # the calls that wait now
        self._lock = threading.Lock()

    def __call__(self, action: Callable[[], T]) -> T:
        """The result of `action`. Raises its last `UnavailableError` when the time is over."""
        deadline, pause, call = self._clock() + self._wait_s, _FIRST_PAUSE_S, object()
        try:
            while True:
                try:
                    return action()
                except UnavailableError as error:
                    left = deadline - self._clock()
                    if self._wait_s <= 0 or self._canceled.is_set():
                        raise
                    if left <= 0:
                        raise UnavailableError(f"{error}; waited {duration(self._wait_s)} for it") from error
                    self._log_once(call, f"{error}; waiting for it, {duration(left)} at most")
                    if self._stopped_during(min(pause, left)):
                        raise UnavailableError(f"{error}; stopped while waiting for it") from error
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
                    with _count_lock:
                        Retry.count += 1
        finally:
            with self._lock:
                self._waiting.discard(call)

    def cancel(self) -> None:
        """Ends all waiting, now and later."""
        self._canceled.set()

    def _log_once(self, call: object, line: str) -> None:
        with self._lock:
            first = not self._waiting
            self._waiting.add(call)
        if first and self._log is not None:
            self._log(line)

    def _stopped_during(self, seconds: float) -> bool:
        """Waits; whether waiting was canceled or stopped meanwhile."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            if self._wait(min(left, _STOP_POLL_S)) or (self._stop is not None and self._stop()):
                return True
        return self._canceled.is_set()


def duration(seconds: float) -> str:
    """`40 s`, `10 min`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


# For commands whose user is waiting: an outage is an error at once.
NO_RETRY = Retry(wait_s=0)
