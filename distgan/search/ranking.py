"""Which trial of a search is best, and whether one is good enough."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from distgan.search.plan import Plan
from distgan.search.record import SearchRecord
from distgan.search.trials import Trial


@dataclass(frozen=True)
class Ranked:
    """A trial with its repetitions.

    Attributes:
        value: mean of the best values of its runs, which differ in their seed.
        std: their standard deviation (n - 1); None for a single run.
        runs: how many were measured.
        trial: the first of them.
        best_run: the one with the best value, whose checkpoint is the winner's.
    """

    value: float
    std: float | None
    runs: int
    trial: Trial
    best_run: Trial


def leaderboard(plan: Plan, trials: Sequence[Trial]) -> list[Ranked]:
    """Trials with a value, the best first: those with the most runs before the others, as luck counts less in them.

    A repetition counts when it has ended: until then its value is that of a run that has come less far.
    """
    repetitions: defaultdict[int | None, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.ended:
            repetitions[trial.repeats].append(trial)
    found = []
    for trial in trials:
        if trial.repeats is not None:
            continue
        runs = [trial, *repetitions[trial.number]]
        measured = [(run, best[1]) for run in runs if (best := run.best(plan.higher_is_better)) is not None]
        if not measured:
            continue
        values = [value for _, value in measured]
        sign = -1 if plan.higher_is_better else 1
        found.append(
            Ranked(
                value=statistics.fmean(values),
                std=statistics.stdev(values) if len(values) > 1 else None,
                runs=len(values),
                trial=trial,
                best_run=min(measured, key=lambda pair: sign * pair[1])[0],
            )
        )
    sign = -1 if plan.higher_is_better else 1
    return sorted(found, key=lambda one: (-one.runs, sign * one.value, one.trial.number))


def reached(record: SearchRecord) -> bool:
    """Whether a trial that has ended is as good as the target, which may have been another one when it did."""
    target, higher_is_better = record.limits.target, record.plan.higher_is_better
    if target is None:
        return False
    values = [best[1] for trial in record.trials if trial.ended and (best := trial.best(higher_is_better))]
    return any(value >= target if higher_is_better else value <= target for value in values)
