"""Between Tune and a search's book: what is tried next, what is known of it, and when all is over."""

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
    """Tune saves what it is given, to restore it one day; a search is restored from its book."""

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SearchStopper(_Unsaved, Stopper):
    """When the search is to end, as another thread says: trials then end by themselves, since Tune kills after 10 s.

    Tune ends what is left after `PATIENCE_S`.
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
    """Hands out the book's trials until the search is to end; `describe` gives what a trial's actor is to know."""

    def __init__(self, book: SearchState, describe: Callable[[Trial], dict[str, Any]], ending: SearchStopper) -> None:
        super().__init__()
        self._book, self._describe, self._ending = book, describe, ending

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is one
        if self._ending.reason is not None:
            return Searcher.FINISHED
        found = self._book.next_trial()
        if found == "wait":
            return None
        return Searcher.FINISHED if found == "done" else self._describe(found)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The book hears of it from `StateCallback`."""

    def save(self, checkpoint_path: str) -> None:
        """The book is kept elsewhere."""

    def restore(self, checkpoint_path: str) -> None:
        """The book is kept elsewhere."""


class StateCallback(_Unsaved, Callback):
    """Writes into the book what becomes of trials."""

    def __init__(self, book: SearchState) -> None:
        self._book = book

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._book.begun(trial.config["number"])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "value" in result:
            self._book.told(result["number"], result["kimg"], result["value"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial that has not said how it ended was stopped by the scheduler."""
        last = trial.last_result
        number, seconds = trial.config["number"], last.get("seconds", 0.0)
        state: TrialState = last.get("state") or "stopped"
        self._book.ended(number, state, last.get("note", ""), seconds)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
        note = lines[-1] if lines else "its process ended"
        self._book.ended(trial.config["number"], "failed", note, trial.last_result.get("seconds", 0.0))
