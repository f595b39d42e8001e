"""Early stopping by the monitored metric: best evaluation, plateaus, targets."""

from __future__ import annotations

import pytest

from distgan.config.schema import EvaluationConfig
from distgan.training.early_stopping import EarlyStopping, ranked
from distgan.training.progress import StepScores

# Distance, evaluations without an improvement after it, and the best so far.
CASES = {
    "steadily better": (0.01, [(100, 0, 100), (90, 0, 90), (80, 0, 80)]),
    "better by less than asked": (0.01, [(100, 0, 100), (99.5, 1, 99.5), (98, 0, 98)]),
    "exactly what is asked is not more than it": (0.5, [(100, 0, 100), (50, 1, 50)]),
    "creeping": (0.1, [(100, 0, 100), (95, 1, 95), (90, 2, 90), (85, 3, 85)]),
    "worse": (0.01, [(100, 0, 100), (120, 1, 100), (101, 2, 100), (90, 0, 90)]),
    "equal, with nothing asked": (0.0, [(100, 0, 100), (100, 1, 100), (99.999, 0, 99.999)]),
}


@pytest.mark.parametrize("untrained", [None, 1.0, 1000.0])
@pytest.mark.parametrize("case", CASES)
def test_status(case: str, untrained: float | None) -> None:
    """The untrained generator changes nothing, however good it was."""
    min_improvement, rows = CASES[case]
    config, evaluations = EvaluationConfig(min_improvement=min_improvement), []
    if untrained is not None:
        evaluations.append(StepScores(0, 0, untrained))
        status = EarlyStopping.status(evaluations, config)
        assert (status.best, status.latest, status.without_improvement) == (None, None, 0)
    for step, (distance, without, best) in enumerate(rows, 1):
        evaluations.append(StepScores(step, step * 1000, distance))
        status = EarlyStopping.status(evaluations, config)
        assert status.without_improvement == without
        assert status.best is not None
        assert status.best.distance == best
        assert status.latest == evaluations[-1]
        assert status.untrained == untrained


def test_the_greater_is_better_of_recall() -> None:
    """An evaluation without the monitored metric does not count."""
    values = [{}, {"recall": 0.2}, {"recall": 0.5}, {"recall": 0.504}, {"recall": 0.1}]
    evaluations = [StepScores(step, step * 1000, 10.0 - step, more) for step, more in enumerate(values, 1)]
    status = EarlyStopping.status(evaluations, EvaluationConfig(monitor="recall", patience=2))
    assert status.best == evaluations[3]
    assert status.latest == evaluations[4]
    assert (status.without_improvement, status.stop_reason) == (2, "plateau")
    assert EarlyStopping.status(evaluations, EvaluationConfig(monitor="recall", target=0.51)).stop_reason is None
    assert EarlyStopping.status(evaluations, EvaluationConfig(monitor="recall", target=0.5)).stop_reason == "target"
    assert EarlyStopping.status(evaluations, EvaluationConfig()).best == evaluations[4]


@pytest.mark.parametrize(("absolute", "without"), [(0.0, 0), (0.0009, 0), (0.0011, 1), (0.1, 1)])
def test_an_improvement_in_the_metrics_own_unit(absolute: float, without: int) -> None:
    """A kernel distance, unbiased, may be negative."""
    evaluations = [StepScores(step, step, 1.0, {"kernel": value}) for step, value in ((1, -0.001), (2, -0.002))]
    config = EvaluationConfig(monitor="kernel", min_improvement_absolute=absolute)
    assert EarlyStopping.status(evaluations, config).without_improvement == without


def test_of_equal_distances_the_first_is_best() -> None:
    evaluations = [StepScores(step, step * 16, 5.0) for step in (1, 2, 3)]
    assert ranked(evaluations, "frechet")[0] is evaluations[0]


@pytest.mark.parametrize(
    ("patience", "min_improvement", "expected"),
    [(None, 0.1, False), (1, 0.1, True), (3, 0.1, True), (4, 0.1, False), (3, 0.01, False), (1, 0.01, False)],
)
def test_a_resumed_run_applies_its_own_rule_to_all_evaluations(
    patience: int | None, min_improvement: float, expected: bool
) -> None:
    creeping = [StepScores(step, step * 16, 100 - 4 * step) for step in range(5)]
    config = EvaluationConfig(patience=patience, min_improvement=min_improvement)
    assert (EarlyStopping.status(creeping, config).stop_reason == "plateau") is expected


@pytest.mark.parametrize(("warm_up_kimg", "without"), [(0.0, 3), (1.9, 3), (2.0, 3), (2.1, 2), (4.0, 1), (4.1, 0)])
def test_evaluations_before_the_end_of_the_warm_up_do_not_count(warm_up_kimg: float, without: int) -> None:
    worse = [StepScores(step, step * 1000, 100.0 + step) for step in (1, 2, 3, 4)]
    config = EvaluationConfig(warm_up_kimg=warm_up_kimg, patience=3)
    assert EarlyStopping.status(worse, config).without_improvement == without
    assert EarlyStopping.status(worse, config).stop_reason == ("plateau" if without == 3 else None)


@pytest.mark.parametrize(("target", "expected"), [(None, "plateau"), (49.9, "plateau"), (50.0, "target")])
def test_a_target_reached_once_ends_the_run(target: float | None, expected: str) -> None:
    """Later evaluations do not matter. The untrained generator cannot reach it."""
    config = EvaluationConfig(target=target, patience=1)
    begun = [StepScores(0, 0, 1.0)]
    assert EarlyStopping.status(begun, config).stop_reason is None
    rows = [*begun, StepScores(1, 16, 50.0), StepScores(2, 32, 60.0)]
    assert EarlyStopping.status(rows, config).stop_reason == expected
