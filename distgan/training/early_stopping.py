"""What a run's evaluations say: which is best, and whether to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distgan.config.schema import EvaluationConfig
from distgan.evaluation.metrics.registry import higher_is_better
from distgan.training.events import Verdict
from distgan.training.progress import Evaluation


@dataclass(frozen=True)
class Score:
    """What the monitored measure was after so many generator updates and real images."""

    step: int
    images: int
    value: float

    @property
    def kimg(self) -> float:
        return self.images / 1000


@dataclass(frozen=True)
class Judgement:
    """Of the evaluations up to now, by the monitored measure. An evaluation without it counts for nothing.

    Attributes:
        untrained: the value of the generator that the run began with, where it was measured.
        best: the best trained one, of equal ones the first.
        latest: the last trained one.
        without_improvement: how many trained ones in a row, up to the last, brought no improvement: that is the first
            of them, and one better than the best before it by more than `min_improvement` of it and
            `min_improvement_absolute`. None is asked for before `warm_up_kimg`.
        verdict: why early stopping ends the run, where it does: the target is reached, or patience is at its end.
    """

    untrained: float | None
    best: Score | None
    latest: Score | None
    without_improvement: int
    verdict: Verdict | None


def judge(evaluations: Sequence[Evaluation], config: EvaluationConfig) -> Judgement:
    """Says it anew each time, so that a session with another `patience` or `monitor` judges all by its own."""
    scores = scores_of(evaluations, config.monitor)
    trained = [score for score in scores if score.step > 0]
    sign = -1 if higher_is_better(config.monitor) else 1  # sign · value: the lower, the better
    best, count = math.inf, 0
    for score in trained:
        value = sign * score.value
        margin = max(config.min_improvement * abs(best), config.min_improvement_absolute) if best < math.inf else 0.0
        improved = value < best - margin
        count = 0 if improved or score.kimg < config.warm_up_kimg else count + 1
        best = min(best, value)
    verdict: Verdict | None = None
    if config.target is not None and best <= sign * config.target:
        verdict = "target"
    elif config.patience is not None and count >= config.patience:
        verdict = "plateau"
    untrained = next((score.value for score in scores if score.step == 0), None)
    best_first = ranked(evaluations, config.monitor)
    return Judgement(untrained, best_first[0] if best_first else None, trained[-1] if trained else None, count, verdict)


def ranked(evaluations: Sequence[Evaluation], monitor: str) -> list[Score]:
    """The trained ones by a measure, the best first, of equal ones the earlier first."""
    trained = [score for score in scores_of(evaluations, monitor) if score.step > 0]
    sign = -1 if higher_is_better(monitor) else 1
    return sorted(trained, key=lambda score: sign * score.value)


def scores_of(evaluations: Sequence[Evaluation], monitor: str) -> list[Score]:
    """The values of a measure, where it was measured."""
    values = ((evaluation, evaluation.value(monitor)) for evaluation in evaluations)
    return [Score(each.step, each.images, value) for each, value in values if value is not None]
