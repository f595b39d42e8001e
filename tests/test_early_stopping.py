"""What evaluations say by the monitored measure: the best, plateaus, targets."""

from __future__ import annotations

import pytest

from distgan.config.schema import EvaluationConfig
from distgan.training.early_stopping import Score, judge, ranked
from distgan.training.progress import Evaluation

# Distances, with what each is judged: evaluations without an improvement, the best so far.
JUDGED = {
    "steadily better": (0.01, [(100, 0, 100), (90, 0, 90), (80, 0, 80)]),
    "better by less than asked": (0.01, [(100, 0, 100), (99.5, 1, 99.5), (98, 0, 98)]),
    "exactly what is asked is not more than it": (0.5, [(100, 0, 100), (50, 1, 50)]),
    "creeping": (0.1, [(100, 0, 100), (95, 1, 95), (90, 2, 90), (85, 3, 85)]),
    "worse": (0.01, [(100, 0, 100), (120, 1, 100), (101, 2, 100), (90, 0, 90)]),
    "equal, with nothing asked": (0.0, [(100, 0, 100), (100, 1, 100), (99.999, 0, 99.999)]),
}


@pytest.mark.parametrize("untrained", [None, 1.0, 1000.0])
@pytest.mark.parametrize("case", JUDGED)
def test_judged(case: str, untrained: float | None) -> None:
    """What the generator was at the beginning changes nothing, however good it was."""
    min_improvement, rows = JUDGED[case]
    config, evaluations = EvaluationConfig(min_improvement=min_improvement), []
    if untrained is not None:
        evaluations.append(Evaluation(0, 0, untrained))
        judgement = judge(evaluations, config)
        assert (judgement.best, judgement.latest, judgement.without_improvement) == (None, None, 0)
    for step, (distance, without, best) in enumerate(rows, 1):
        evaluations.append(Evaluation(step, step * 1000, distance))
        judgement = judge(evaluations, config)
        assert judgement.without_improvement == without
        assert judgement.best is not None
        assert judgement.best.value == best
        assert judgement.latest == Score(step, step * 1000, distance)
        assert judgement.untrained == untrained


def test_the_greater_is_better_of_recall() -> None:
    """An evaluation of another session that did not measure it counts for nothing."""
    values = [{}, {"recall": 0.2}, {"recall": 0.5}, {"recall": 0.504}, {"recall": 0.1}]
    evaluations = [Evaluation(step, step * 1000, 10.0 - step, more) for step, more in enumerate(values, 1)]
    judgement = judge(evaluations, EvaluationConfig(monitor="recall", patience=2))
    assert judgement.best == Score(4, 4000, 0.504)
    assert judgement.latest == Score(5, 5000, 0.1)
    assert (judgement.without_improvement, judgement.verdict) == (2, "plateau")
    assert judge(evaluations, EvaluationConfig(monitor="recall", target=0.51)).verdict is None
    assert judge(evaluations, EvaluationConfig(monitor="recall", target=0.5)).verdict == "target"
    assert judge(evaluations, EvaluationConfig()).best == Score(5, 5000, 5.0)


@pytest.mark.parametrize(("absolute", "without"), [(0.0, 0), (0.0009, 0), (0.0011, 1), (0.1, 1)])
def test_an_improvement_in_the_measures_own_unit(absolute: float, without: int) -> None:
    """A kernel distance, unbiased, may be negative."""
    evaluations = [Evaluation(step, step, 1.0, {"kernel": value}) for step, value in ((1, -0.001), (2, -0.002))]
    config = EvaluationConfig(monitor="kernel", min_improvement_absolute=absolute)
    assert judge(evaluations, config).without_improvement == without


def test_of_equal_distances_the_first_is_best() -> None:
    evaluations = [Evaluation(step, step * 16, 5.0) for step in (1, 2, 3)]
    assert ranked(evaluations, "frechet")[0] == Score(1, 16, 5.0)


@pytest.mark.parametrize(
    ("patience", "min_improvement", "expected"),
    [(None, 0.1, False), (1, 0.1, True), (3, 0.1, True), (4, 0.1, False), (3, 0.01, False), (1, 0.01, False)],
)
def test_another_session_judges_all_evaluations_by_its_own_rule(
    patience: int | None, min_improvement: float, expected: bool
) -> None:
    creeping = [Evaluation(step, step * 16, 100 - 4 * step) for step in range(5)]
    config = EvaluationConfig(patience=patience, min_improvement=min_improvement)
    assert (judge(creeping, config).verdict == "plateau") is expected


@pytest.mark.parametrize(("warm_up_kimg", "without"), [(0.0, 3), (1.9, 3), (2.0, 3), (2.1, 2), (4.0, 1), (4.1, 0)])
def test_what_comes_before_the_end_of_the_warm_up_does_not_try_patience(warm_up_kimg: float, without: int) -> None:
    worse = [Evaluation(step, step * 1000, 100.0 + step) for step in (1, 2, 3, 4)]
    config = EvaluationConfig(warm_up_kimg=warm_up_kimg, patience=3)
    assert judge(worse, config).without_improvement == without
    assert judge(worse, config).verdict == ("plateau" if without == 3 else None)


@pytest.mark.parametrize(("target", "expected"), [(None, "plateau"), (49.9, "plateau"), (50.0, "target")])
def test_a_target_once_reached_ends_the_run(target: float | None, expected: str) -> None:
    """Whatever came after; the untrained generator cannot reach it."""
    config = EvaluationConfig(target=target, patience=1)
    begun = [Evaluation(0, 0, 1.0)]
    assert judge(begun, config).verdict is None
    rows = [*begun, Evaluation(1, 16, 50.0), Evaluation(2, 32, 60.0)]
    assert judge(rows, config).verdict == expected
