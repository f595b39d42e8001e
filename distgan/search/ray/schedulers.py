"""Tune's schedulers with rungs in kimg, which know the trials of earlier sessions and exempt some trials."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from distgan.launch.ray_internals import keep_actors, overrule_stop
from distgan.search.plan import SearchPlan
from distgan.search.record import Trial

# ASHA has one bracket, Hyperband (Li et al. 2018, 2020) several, which differ in how early their first rung is.
_BRACKETS = {"asha": 1, "hyperband": 3}

_BY_KIMG: dict[str, Any] = {"time_attr": "kimg", "metric": "score", "mode": "min"}


class _Keeping:
    """Has Tune keep the actors of trials that have ended for the next ones.

    Attributes:
        kept_actors: how many at once.
    """

    kept_actors: int = 0

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        super().on_trial_add(controller, trial)  # type: ignore[misc]
        if self.kept_actors and controller is not None:  # None where an earlier session's trials are replayed
            keep_actors(controller, trial.placement_group_factory, self.kept_actors)
            self.kept_actors = 0


class KeepAll(_Keeping, FIFOScheduler):
    """Stops no trial."""


class _Exempting(_Keeping):
    """Does not stop trials that are `exempt` or at their end, nor one for an evaluation of an earlier session.

    The results of a trial have a `score`.

    Attributes:
        trial_kimg: where a trial ends by itself and reports how.
    """

    trial_kimg: float = math.inf

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["exempt"]:
            return TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(controller, trial, result)  # type: ignore[misc]
        if decision == TrialScheduler.STOP and (result.get("replayed") or result["kimg"] >= self.trial_kimg):
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "score" in result and not result["exempt"]:
            super().on_trial_complete(controller, trial, result)  # type: ignore[misc]


class SuccessiveHalving(_Exempting, AsyncHyperBandScheduler):
    """ASHA, or asynchronous Hyperband; a trial's bracket is a function of its number.

    A trial is judged once at each rung. Of two rungs between evaluations the higher one counts.
    """

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        kept = np.random.get_state()
        np.random.seed(trial.config["number"])
        super().on_trial_add(controller, trial)
        np.random.set_state(kept)


class MedianStopping(_Exempting, MedianStoppingRule):
    """Stops a trial whose best value is worse than the median of the others' mean values up to there.

    No trial waits for others: a pause would take its workers away.
    """

    def __init__(self, grace_kimg: float) -> None:
        super().__init__(**_BY_KIMG, grace_period=grace_kimg, min_time_slice=math.inf)  # type: ignore[arg-type]
        self._known_kimg: dict[Any, float] = {}

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["kimg"] <= self._known_kimg.get(trial, -math.inf):
            return TrialScheduler.CONTINUE  # after a fault a trial reports again what it has measured
        if "score" in result and not result["exempt"]:
            self._known_kimg[trial] = result["kimg"]
        decision = super().on_trial_result(controller, trial, result)
        if decision == TrialScheduler.CONTINUE:
            overrule_stop(self, trial)
        return decision

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The last result repeats an evaluation, which would count twice in the mean."""


@dataclass(frozen=True, eq=False)
class PastTrial:
    """A trial of an earlier session, with the attributes that schedulers read."""

    trial_id: str
    config: dict[str, Any]


def build_scheduler(plan: SearchPlan, kept_actors: int = 0) -> TrialScheduler:
    """The plan's scheduler, for trials whose actors are kept, up to a number. In a population none stops a trial."""
    scheduler: SuccessiveHalving | MedianStopping | KeepAll
    if plan.scheduler in _BRACKETS:
        scheduler = SuccessiveHalving(
            **_BY_KIMG,
            max_t=plan.kimg,  # type: ignore[arg-type]  # any number will do
            grace_period=plan.grace_kimg,  # type: ignore[arg-type]
            reduction_factor=plan.reduction_factor,
            brackets=_brackets(plan),
            stop_last_trials=False,  # else an evaluation after that of a rung is judged at the one below
        )
    elif plan.scheduler == "median":
        scheduler = MedianStopping(plan.grace_kimg)
    else:
        scheduler = KeepAll()  # type: ignore[no-untyped-call]
    scheduler.kept_actors = kept_actors
    if isinstance(scheduler, _Exempting):
        scheduler.trial_kimg = plan.kimg
    return scheduler


def replay_trials(scheduler: TrialScheduler, plan: SearchPlan, trials: Iterable[Trial]) -> None:
    """Replays the trials that have ended in earlier sessions to a new scheduler.

    Failed trials are tried again, and report their earlier evaluations themselves.
    """
    sign = -1 if plan.higher_is_better else 1
    for trial in trials:
        if not trial.ended or trial.state == "failed" or not trial.curve or trial.repeats is not None:
            continue
        known: Any = PastTrial(f"known-{trial.number}", {"number": trial.number})
        controller: Any = None
        scheduler.on_trial_add(controller, known)
        score = float("inf")
        result: dict[str, Any] = {}
        for kimg, value in trial.curve:
            score = min(score, sign * value)
            result = {"kimg": kimg, "score": score, "exempt": False, "replayed": True}
            scheduler.on_trial_result(controller, known, result)
        scheduler.on_trial_complete(controller, known, result)


def _brackets(plan: SearchPlan) -> int:
    """The number of brackets: as many as have a rung of their own below the whole length."""
    rungs = int(np.log(plan.kimg / plan.grace_kimg) / np.log(plan.reduction_factor) + 1)
    return max(1, min(_BRACKETS[plan.scheduler], rungs))
