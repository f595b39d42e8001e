"""A search in simulated time: Tune's own schedulers over recorded curves, with fakes of its controller and trials.

What the controller does for a scheduler is Ray 2.60's `ray.tune.execution.tune_controller`: trials are added in order,
a free slot takes the trial that the scheduler chooses or else the first that waits, and each result brings a decision.
The clock counts kimg; all trials train equally fast, and to pause one costs nothing. So trials come to each rung of
ASHA in the order in which they began, and what it decides does not depend on how many run at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from benchmarks.curves import Curve

_ENDED = (Trial.TERMINATED, Trial.ERROR)


@dataclass(frozen=True)
class Outcome:
    """How a search ended.

    Attributes:
        kimg: trained in all, by each trial up to where it was stopped.
        winner: number of the trial with the best value that was seen.
        best: that value.
    """

    kimg: float
    winner: int
    best: float


class ReplayedTrial:
    """What schedulers know of a trial, and a curve in place of its training."""

    is_saving = False

    def __init__(self, curve: Curve) -> None:
        self.curve, self.trial_id = curve, str(curve.number)
        self.status: str = Trial.PENDING
        self.last_result: dict[str, Any] = {}
        self.reported = 0
        self.kimg, self.best = 0.0, float("inf")

    @property
    def next_kimg(self) -> float:
        """Where it reports next, or, with no row left, where it diverges."""
        rows = self.curve.rows
        return rows[self.reported][0] if self.reported < len(rows) else self.curve.kimg

    def report(self) -> dict[str, Any] | None:
        """Trains up to there; the result, or None where it diverged instead."""
        self.kimg = self.next_kimg
        if self.reported == len(self.curve.rows):
            return None
        value = self.curve.rows[self.reported][1]
        self.reported += 1
        self.best = min(self.best, value)
        self.last_result = {
            "training_iteration": self.reported,
            "kimg": self.kimg,
            "value": value,
            "best": self.best,
        }
        return self.last_result

    @property
    def is_finished(self) -> bool:
        return self.curve.diverged is None and self.reported == len(self.curve.rows)


class Replay:
    """Tune's controller, as far as schedulers see it; `at_once` trials run at a time."""

    def __init__(self, scheduler: TrialScheduler, curves: Sequence[Curve], at_once: int) -> None:
        self._scheduler: Any = scheduler  # takes fakes, which are neither a TuneController nor a Trial
        self._at_once = at_once
        self._trials = [ReplayedTrial(curve) for curve in curves]
        self._running: list[tuple[float, int, ReplayedTrial]] = []
        self._now, self._begun = 0.0, 0

    def get_trials(self) -> list[ReplayedTrial]:
        return self._trials

    def get_live_trials(self) -> set[ReplayedTrial]:
        return {trial for trial in self._trials if trial.status not in _ENDED}

    def run(self) -> Outcome:
        """The whole search. Raises RuntimeError where the scheduler leaves trials paused for ever."""
        for trial in self._trials:
            self._scheduler.on_trial_add(self, trial)
        self._fill()
        while self._running:
            self._now, _, trial = heapq.heappop(self._running)
            self._report(trial)
            self._fill()
        if left := self.get_live_trials():
            raise RuntimeError(f"{len(left)} trials wait for ever: {self._scheduler.debug_string()}")
        winner = min(self._trials, key=lambda trial: trial.best)
        return Outcome(sum(trial.kimg for trial in self._trials), winner.curve.number, winner.best)

    def stop_trial(self, trial: ReplayedTrial) -> None:
        """As a scheduler asks for, also for trials that are not running."""
        if trial.status in _ENDED:
            return
        if trial.status == Trial.RUNNING:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
        else:
            self._scheduler.on_trial_remove(self, trial)
        trial.status = Trial.TERMINATED

    def _fill(self) -> None:
        """Gives free slots to trials that wait."""
        while len(self._running) < self._at_once and (trial := self._next()) is not None:
            trial.status = Trial.RUNNING
            self._continue(trial)

    def _next(self) -> ReplayedTrial | None:
        chosen: ReplayedTrial | None = self._scheduler.choose_trial_to_run(self)
        if chosen is not None:
            return chosen
        return next((trial for trial in self._trials if trial.status == Trial.PENDING), None)

    def _continue(self, trial: ReplayedTrial) -> None:
        self._begun += 1  # of those that are due together, the first to begin comes first
        heapq.heappush(self._running, (self._now + trial.next_kimg - trial.kimg, self._begun, trial))

    def _report(self, trial: ReplayedTrial) -> None:
        result = trial.report()
        if result is None:
            self._scheduler.on_trial_error(self, trial)
            trial.status = Trial.ERROR
            return
        decision = self._scheduler.on_trial_result(self, trial, result)
        if decision == TrialScheduler.STOP or trial.is_finished:
            self.stop_trial(trial)
        elif decision == TrialScheduler.PAUSE:
            trial.status = Trial.PAUSED
        else:
            self._continue(trial)
