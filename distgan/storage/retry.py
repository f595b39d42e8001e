"""Waits for storage that is away for a while: the one policy by which anything is tried again.

Each request is tried again within itself too (`storage_urls`), for what is over in a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from distgan.storage.storage_errors import UnavailableError

T = TypeVar("T")

WAIT_S = 120.0

_FIRST_PAUSE_S = 0.5

_LONGEST_PAUSE_S = 10.0

# How often a wish to stop is asked for.
_SLICE_S = 1.0


def _never() -> bool:
    return False


class Retry:
    """Tries again what storage cannot do now, with growing pauses, for two minutes; other errors pass at once.

    Threads may share it: what is said of an outage is said once.

    Args:
        say: is told, with the reason, when waiting begins.
        stop: whether to wait no longer; asked about once a second.
        wait_s: how long after a request began one more is made.
        clock: seconds, from any origin.
        wait: waits so many seconds, less where `end` is called; whether it was.
    """

    def __init__(
        self,
        say: Callable[[str], None] = lambda _: None,
        stop: Callable[[], bool] = _never,
        *,
        wait_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._say, self._stop, self._clock = say, stop, clock
        self._wait_s = WAIT_S if wait_s is None else wait_s
        self._ended = threading.Event()
        self._wait = wait or self._ended.wait
        self._waiting: set[object] = set()
        self._lock = threading.Lock()

    def __call__(self, action: Callable[[], T]) -> T:
        """What `action` returns. Raises its last `UnavailableError` where it does not work in time."""
        deadline, pause, call = self._clock() + self._wait_s, _FIRST_PAUSE_S, object()
        try:
            while True:
                try:
                    return action()
                except UnavailableError as error:
                    left = deadline - self._clock()
                    if left <= 0 or self._ended.is_set():
                        raise
                    self._begins(call, error, left)
                    if self._pause(min(pause, left)):
                        raise UnavailableError(f"{error}; told to stop while waiting for it") from error
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            with self._lock:
                self._waiting.discard(call)

    def end(self) -> None:
        """Ends all waiting for good."""
        self._ended.set()

    def _begins(self, call: object, error: UnavailableError, left: float) -> None:
        with self._lock:
            first = not self._waiting
            self._waiting.add(call)
        if first:
            self._say(f"{error}; waiting for it, {left:.0f} s at most")

    def _pause(self, seconds: float) -> bool:
        """Waits so long; whether to wait no longer."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            if self._wait(min(left, _SLICE_S)) or self._stop():
                return True
        return self._ended.is_set()


# For commands that somebody looks at: what is away is told at once.
NO_RETRY = Retry(wait_s=0)
