"""Writes in the background: one in progress, and at most one that waits for it in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar


@dataclass(frozen=True)
class Write:
    """Something to write.

    Attributes:
        required: whether it may not be left out.
        best: whether nothing was better when it came.
    """

    name: str
    required: bool
    best: bool


W = TypeVar("W", bound=Write)


class WriteQueue(Generic[W]):
    """One write in progress, and at most one that waits.

    Attributes:
        skipped: how many were left out.

    Args:
        write: writes; called in a thread.
        log: called with the name of the first one that is left out.
    """

    def __init__(self, write: Callable[[W], None], log: Callable[[str], None]) -> None:
        self._write, self._log = write, log
        # The writing thread changes these, with the lock of the condition.
        self._changed = threading.Condition()
        self._writing: W | None = None
        self._waiting: W | None = None
        self._failure: Exception | None = None
        self.skipped = 0

    @property
    def names(self) -> list[str]:
        """Of what is being written, and waits."""
        return [write.name for write in (self._writing, self._waiting) if write is not None]

    @property
    def has_waiting(self) -> bool:
        return self._waiting is not None

    def make_room(self, name: str, best: str | None, required: bool) -> bool:
        """Makes room for a new write. Returns False where it is left out.

        It takes the place of the one that waits, unless that is required or the best one. Then it is left out, or,
        if it is required or the best one itself, waits until the other begins.
        """
        with self._changed:
            waiting = self._waiting
            if waiting is None:
                return True
            if not waiting.required and waiting.name != best:
                self._skip(waiting.name)
                self._waiting = None
                return True
            if not required and name != best:
                self._skip(name)
                return False
            self._changed.wait_for(lambda: self._waiting is None)
            return True

    def put(self, write: W) -> None:
        """Adds a write for which there is room; it begins at once if none is in progress."""
        with self._changed:
            if self._writing is not None:
                self._waiting = write
                return
            self._writing = write
        # Not a daemon thread: the program ends only when all is written.
        threading.Thread(target=self._run, args=(write,), name="distgan-checkpoint").start()

    def drop_waiting(self) -> None:
        with self._changed:
            self._waiting = None

    def join(self, name: str | None = None) -> None:
        """Waits until all is written, or this one, even if it fails."""
        with self._changed:
            self._changed.wait_for(lambda: not self._has(name))

    def has_written(self, name: str) -> bool:
        """Whether nothing failed, and nothing of that name is still to be written."""
        with self._changed:
            return self._failure is None and not self._has(name)

    def raise_failure(self) -> None:
        """Raises the first error of a write, once."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _has(self, name: str | None) -> bool:
        return bool(self.names) if name is None else name in self.names

    def _skip(self, name: str) -> None:
        self.skipped += 1
        if self.skipped == 1:
            self._log(name)

    def _run(self, write: W | None) -> None:
        """Writes this one, then those that wait, until none does."""
        while write is not None:
            try:
                self._write(write)
            except Exception as error:  # noqa: BLE001 - raised by raise_failure()
                self._failure = self._failure or error
            with self._changed:
                write = self._writing = self._waiting
                self._waiting = None
                self._changed.notify_all()
