"""Tune's hooks: a searcher and a callback that use the search's state, and a stopper."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from distgan.search.record import SearchEnd, Trial, TrialState
from distgan.search.search_state import SearchState


class _Unsaved:
    """Not saved by Tune: a search is restored from its own record."""

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SearchStopper(_Unsaved, Stopper):
    """Ends the search when another thread asks for it.

    Trials save their state and end by themselves; Tune would kill them after 10 s. Tune ends the rest
    after `PATIENCE_S`.
    """

    PATIENCE_S = 600.0

    def __init__(self) -> None:
        self.reason: SearchEnd | None = None
        self._until = math.inf

    def begin(self, reason: SearchEnd) -> None:
        self.reason, self._until = reason, time.monotonic() + self.PATIENCE_S

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return time.monotonic() >= self._until


class StateSearcher(_Unsaved, Searcher):
    """Hands out the trials of a search until it ends; `describe` makes the configuration of a trial's actor."""

    def __init__(self, state: SearchState, describe: Callable[[Trial], dict[str, Any]], stopper: SearchStopper) -> None:
        super().__init__()
        self._state, self._describe, self._stopper = state, describe, stopper

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is one
        if self._stopper.reason is not None:
            return Searcher.FINISHED
        found = self._state.next_trial()
        if found == "wait":
            return None
        return Searcher.FINISHED if found == "done" else self._describe(found)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """`StateCallback` records it."""

    def save(self, checkpoint_path: str) -> None:
        """The state is kept in the search's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """The state is kept in the search's storage."""


class StateCallback(_Unsaved, Callback):
    """Records the starts, evaluations and ends of trials."""

    def __init__(self, state: SearchState) -> None:
        self._state = state

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._state.started(trial.config["number"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "value" in result:
            self._state.evaluated(result["number"], result["kimg"], result["value"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial that has not reported how it ended was stopped by the scheduler."""
        last = trial.last_result
        number, seconds = trial.config["number"], last.get("seconds", 0.0)
        state: TrialState = last.get("state") or "stopped"
        self._state.ended(number, state, last.get("note", ""), seconds)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
        note = lines[-1] if lines else "its process ended"
        self._state.ended(trial.config["number"], "failed", note, trial.last_result.get("seconds", 0.0))
