"""Tune's schedulers, with rungs in kimg, that know trials of earlier sessions and leave some alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from distgan.launch.ray_internals import overrule_stop
from distgan.search.plan import Plan
from distgan.search.record import Trial

# Of ASHA as of Hyperband (Li et al. 2018, 2020), whose brackets differ in how early their first rung is.
_BRACKETS = {"asha": 1, "hyperband": 3}

_BY_KIMG: dict[str, Any] = {"time_attr": "kimg", "metric": "score", "mode": "min"}


class _Lenient:
    """Lets trials be that are `exempt` or at their end, and does not stop one for what was known when it went on.

    Before a trial's result there must be a `score`.

    Attributes:
        whole_kimg: where a trial ends by itself, and says how.
    """

    whole_kimg: float = math.inf

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["exempt"]:
            return TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(controller, trial, result)  # type: ignore[misc]
        if decision == TrialScheduler.STOP and (result.get("replayed") or result["kimg"] >= self.whole_kimg):
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "score" in result and not result["exempt"]:
            super().on_trial_complete(controller, trial, result)  # type: ignore[misc]


class Halving(_Lenient, AsyncHyperBandScheduler):
    """ASHA, or asynchronous Hyperband; a trial's bracket is a function of its number.

    A trial is judged once at each rung; at the higher of two that lie between evaluations.
    """

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        kept = np.random.get_state()
        np.random.seed(trial.config["number"])
        super().on_trial_add(controller, trial)
        np.random.set_state(kept)


class Median(_Lenient, MedianStoppingRule):
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
class _Known:
    """A trial of an earlier session, as far as schedulers look at trials."""

    trial_id: str
    config: dict[str, Any]


def build_scheduler(plan: Plan) -> TrialScheduler:
    """The plan's scheduler. None stops a trial of a population."""
    scheduler: Halving | Median
    if plan.scheduler in _BRACKETS:
        scheduler = Halving(
            **_BY_KIMG,
            max_t=plan.kimg,  # type: ignore[arg-type]  # any number will do
            grace_period=plan.grace_kimg,  # type: ignore[arg-type]
            reduction_factor=plan.reduction_factor,
            brackets=_brackets(plan),
            stop_last_trials=False,  # else an evaluation after that of a rung is judged at the one below
        )
    elif plan.scheduler == "median":
        scheduler = Median(plan.grace_kimg)
    else:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    scheduler.whole_kimg = plan.kimg
    return scheduler


def remember(scheduler: TrialScheduler, plan: Plan, trials: Iterable[Trial]) -> None:
    """Tells a new scheduler of trials that have ended in earlier sessions, as if it had seen them.

    Those that failed are tried again, and tell by themselves what they have measured.
    """
    sign = -1 if plan.higher_is_better else 1
    for trial in trials:
        if not trial.ended or trial.state == "failed" or not trial.curve or trial.repeats is not None:
            continue
        known: Any = _Known(f"known-{trial.number}", {"number": trial.number})
        controller: Any = None
        scheduler.on_trial_add(controller, known)
        score = float("inf")
        result: dict[str, Any] = {}
        for kimg, value in trial.curve:
            score = min(score, sign * value)
            result = {"kimg": kimg, "score": score, "exempt": False, "replayed": True}
            scheduler.on_trial_result(controller, known, result)
        scheduler.on_trial_complete(controller, known, result)


def _brackets(plan: Plan) -> int:
    """As many as have a rung of their own below the whole length."""
    rungs = int(np.log(plan.kimg / plan.grace_kimg) / np.log(plan.reduction_factor) + 1)
    return max(1, min(_BRACKETS[plan.scheduler], rungs))
