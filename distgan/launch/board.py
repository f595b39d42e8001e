"""An actor between a run's workers and its driver: events one way, the wish to stop the other."""

from __future__ import annotations

from typing import Any

import ray


class Board:
    """Collects what rank 0 tells until the driver takes it."""

    def __init__(self) -> None:
        self._events: list[object] = []
        self._stop = False
        self._mistake: str | None = None

    def put(self, event: object) -> None:
        self._events.append(event)

    def take(self) -> tuple[list[object], str | None]:
        """The events since the last call, and the mistake that ends the run, if a worker met one."""
        events, self._events = self._events, []
        return events, self._mistake

    def ask_to_stop(self) -> None:
        self._stop = True

    def stop_asked(self) -> bool:
        return self._stop

    def put_mistake(self, message: str) -> None:
        """Notes the message of a `UserError`: the run is not to be tried again."""
        self._mistake = self._mistake or message

    def mistake(self) -> str | None:
        return self._mistake


def create_board() -> Any:
    """A handle to a new board on the cluster."""
    return ray.remote(num_cpus=0)(Board).remote()
