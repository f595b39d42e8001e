"""Tune's hooks: a searcher and a callback that use the search's state, and a stopper."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle
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
    after `PATIENCE_S`, and those that wait for places at once.

    Attributes:
        running: numbers of the trials that have an actor.
    """

    PATIENCE_S = 600.0

    def __init__(self) -> None:
        self.reason: SearchEnd | None = None
        self.running: set[int] = set()
        self._until = math.inf

    def begin(self, reason: SearchEnd) -> None:
        self._until = time.monotonic() + self.PATIENCE_S
        self.reason = reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.reason is not None and (not self.running or time.monotonic() >= self._until)


class StateSearcher(_Unsaved, Searcher):
    """Hands out the trials of a search until it ends; `describe` makes the configuration of a trial's actor."""

    def __init__(self, state: SearchState, describe: Callable[[Trial], dict[str, Any]], stopper: SearchStopper) -> None:
        super().__init__()
        self._state, self._describe, self._stopper = state, describe, stopper

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is one
        if self._stopper.reason is not None:
            return Searcher.FINISHED
        found = self._state.next_trial()
        if found == "wait" or (found == "done" and self._state.running):  # a lost one may be handed out again
            return None
        return Searcher.FINISHED if found == "done" else self._describe(found)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """`StateCallback` records it."""

    def save(self, checkpoint_path: str) -> None:
        """The state is kept in the search's storage."""

    def restore(self, checkpoint_path: str) -> None:
        """The state is kept in the search's storage."""


class StateCallback(_Unsaved, Callback):
    """Records the starts, evaluations and ends of trials.

    Args:
        stopper: is told which trials have an actor.
        stop: has a trial's run of Ray Train save its state and end, by number: the scheduler has stopped the trial, and
            its actor may be kept for another one that comes late. A run in the actor waits after its evaluation.
        lost: records that a trial's actor was lost, by number and error; returns why it may not begin again, or an
            empty text.
    """

    def __init__(
        self,
        state: SearchState,
        stopper: SearchStopper,
        stop: Callable[[int], object],
        lost: Callable[[int, Exception | None], str],
    ) -> None:
        self._state, self._stopper, self._stop, self._lost = state, stopper, stop, lost

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self._stopper.running.add(number)
        self._state.started(number)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "value" in result:
            self._state.evaluated(result["number"], result["kimg"], result["value"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial that has not reported how it ended was stopped by the scheduler, or has never had an actor."""
        last = trial.last_result
        number, seconds = trial.config["number"], last.get("seconds", 0.0)
        if number not in self._stopper.running:
            return
        self._stopper.running.discard(number)
        state: TrialState = last.get("state") or "stopped"
        if state == "stopped":
            self._stop(number)
        self._state.ended(number, state, last.get("note", ""), seconds)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its actor was lost, and Tune begins it again."""
        number = trial.config["number"]
        self._stopper.running.discard(number)
        if self._lost(number, _last_error(trial)):
            trial.max_failures = 0  # the next actor reports why it may not begin; it must not fail for ever

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It has failed, or an actor that was kept for it was lost: then another one gets it."""
        number = trial.config["number"]
        self._stopper.running.discard(number)
        note = self._lost(number, None)
        if note:
            self._state.ended(number, "failed", note, trial.last_result.get("seconds", 0.0))
        else:
            self._state.hand_out_again(number)


def _last_error(trial: Any) -> Exception:
    """Why a trial's actor was lost. Tune has just written it, into a folder of this process."""
    error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error
