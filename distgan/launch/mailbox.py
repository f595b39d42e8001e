"""A call in a thread, whose outcome can be asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distgan.errors import UserError


class Background:
    """Begins the call at once."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended(self, within_s: float) -> bool:
        """Whether it has ended; waits so long for it."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def raise_error(self) -> None:
        """What the call raised, if anything."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._error = error


class Mailbox:
    """Collects what rank 0 tells until the driver takes it."""

    def __init__(self) -> None:
        self._events: list[object] = []
        self._stop = False
        self._mistake: UserError | None = None

    def put(self, event: object) -> None:
        self._events.append(event)

    def take(self) -> tuple[list[object], UserError | None]:
        """The events since the last call, and the mistake that ends the run, if a worker met one."""
        events, self._events = self._events, []
        return events, self._mistake

    def ask_to_stop(self) -> None:
        self._stop = True

    def stop_asked(self) -> bool:
        return self._stop

    def put_mistake(self, mistake: UserError) -> None:
        """Notes what a worker has met: the run is not to be tried again."""
        self._mistake = self._mistake or mistake

    def mistake(self) -> UserError | None:
        return self._mistake


def create_mailbox() -> Any:
    """A handle to a new board, on the node of this process: while this one lives, so does the board."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    board: Any = ray.remote(num_cpus=0)(Mailbox)
    return board.options(scheduling_strategy=strategy).remote()
