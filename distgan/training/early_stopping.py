"""Early stopping: the status of a run by its evaluations, and whether they end it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from distgan.config.schema import EvaluationConfig
from distgan.evaluation.metrics.registry import higher_is_better
from distgan.training.events import StopReason
from distgan.training.progress import StepScores


@dataclass(frozen=True)
class EarlyStopping:
    """The status after some evaluations, by the monitored metric. An evaluation without that metric does not count.

    Attributes:
        untrained: value of the generator that the run began with, where it was evaluated.
        best: the best evaluation of a trained generator, of equal ones the first.
        latest: the last evaluation of a trained generator.
        without_improvement: evaluations in a row, up to the last, without an improvement. The first evaluation is an
            improvement, and so is one that beats the best before it by more than `min_improvement` of that and by more
            than `min_improvement_absolute`. Evaluations before `warm_up_kimg` are not counted.
        stop_reason: "target" when the target is reached, "plateau" when patience runs out, else None.
    """

    untrained: float | None
    best: StepScores | None
    latest: StepScores | None
    without_improvement: int
    stop_reason: StopReason | None

    @classmethod
    def status(cls, evaluations: Sequence[StepScores], config: EvaluationConfig) -> EarlyStopping:
        """A pure function of both, so a resumed run may change `monitor`, `patience` and the like."""
        values = monitored(evaluations, config.monitor)
        trained = [(evaluation, value) for evaluation, value in values if evaluation.step > 0]
        sign = _sign(config.monitor)
        best, count = math.inf, 0
        for evaluation, value in trained:
            margin = (
                max(config.min_improvement * abs(best), config.min_improvement_absolute) if best < math.inf else 0.0
            )
            improved = sign * value < best - margin
            count = 0 if improved or evaluation.kimg < config.warm_up_kimg else count + 1
            best = min(best, sign * value)
        reason: StopReason | None = None
        if config.target is not None and best <= sign * config.target:
            reason = "target"
        elif config.patience is not None and count >= config.patience:
            reason = "plateau"
        best_first = ranked(evaluations, config.monitor)
        return cls(
            untrained=next((value for evaluation, value in values if evaluation.step == 0), None),
            best=best_first[0] if best_first else None,
            latest=trained[-1][0] if trained else None,
            without_improvement=count,
            stop_reason=reason,
        )


def ranked(evaluations: Sequence[StepScores], monitor: str) -> list[StepScores]:
    """Evaluations of trained generators by a metric, best first, of equal ones the earlier first."""
    trained = [(one, value) for one, value in monitored(evaluations, monitor) if one.step > 0]
    sign = _sign(monitor)
    return [evaluation for evaluation, _ in sorted(trained, key=lambda pair: sign * pair[1])]


def monitored(evaluations: Sequence[StepScores], monitor: str) -> list[tuple[StepScores, float]]:
    """Evaluations that have a metric, each with its value."""
    values = ((evaluation, evaluation.value(monitor)) for evaluation in evaluations)
    return [(evaluation, value) for evaluation, value in values if value is not None]


def _sign(monitor: str) -> int:
    """1 or -1: of sign times value, lower is better."""
    return -1 if higher_is_better(monitor) else 1
