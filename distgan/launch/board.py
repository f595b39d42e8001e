"""An actor between a run's workers and its driver: events one way, the wish to stop the other."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distgan.errors import UserError


class Board:
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


def create_board() -> Any:
    """A handle to a new board, on the node of this process: while this one lives, so does the board."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    board: Any = ray.remote(num_cpus=0)(Board)
    return board.options(scheduling_strategy=strategy).remote()
