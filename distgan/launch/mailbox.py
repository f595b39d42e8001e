"""Communication of a driver with its workers: a call in the background, and a mailbox for events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Background:
    """A call in a thread, started at once."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended(self, within_s: float) -> bool:
        """Whether the call has ended; waits up to `within_s` seconds for it."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def raise_error(self) -> None:
        """Raises what the call raised, if anything."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._error = error


class Mailbox:
    """An actor: keeps the events that workers put until the driver takes them, and whether they are to stop."""

    def __init__(self) -> None:
        self._events: list[object] = []
        self._stop = False
        self._error: Exception | None = None

    def put(self, event: object) -> None:
        self._events.append(event)

    def take(self) -> tuple[list[object], Exception | None]:
        """The events since the last call, and the error of a worker that no retry can fix, if any."""
        events, self._events = self._events, []
        return events, self._error

    def ask_to_stop(self) -> None:
        self._stop = True

    def stop_asked(self) -> bool:
        return self._stop

    def put_error(self, error: Exception) -> None:
        """Keeps the first error: no retry can fix it."""
        self._error = self._error or error

    def error(self) -> Exception | None:
        return self._error


def create_mailbox(kind: type[Mailbox] = Mailbox, *arguments: object) -> Any:
    """A handle to a new mailbox on the node of this process, so that both live equally long."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    actor: Any = ray.remote(num_cpus=0)(kind)
    return actor.options(scheduling_strategy=strategy).remote(*arguments)
