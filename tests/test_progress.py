"""Counters, early stopping and the moving average of weights: plain arithmetic."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from distgan.config.schema import EmaConfig, EvaluationConfig
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.progress import Evaluation, Progress, due


@pytest.mark.parametrize(
    ("before", "after", "every_kimg", "expected"),
    [
        (0, 128, 0.2, False),
        (128, 256, 0.2, True),
        (72, 200, 0.2, True),  # arrives at the multiple
        (200, 328, 0.2, False),  # leaves from it
        (0, 1000, 0.2, True),  # several at once
        (0, 128, 1e-9, True),  # less than an image: every step
        (99_999_900, 100_000_028, 100.0, True),
        (99_999_800, 99_999_928, 100.0, False),
        (0, 16, 0.016, True),
        (16, 32, 0.0161, True),
        (32, 48, 0.0161, True),
    ],
)
def test_due(before: int, after: int, every_kimg: float, expected: bool) -> None:
    assert due(before, after, every_kimg) is expected


def test_due_happens_as_often_as_it_should() -> None:
    """Whatever the step, one call a multiple of `every` and none twice."""
    for step in (96, 100, 128, 1536):
        times = sum(due(images, images + step, 2.0) for images in range(0, step * 200, step))
        assert times == step * 200 // 2000


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
    config, progress = EvaluationConfig(min_improvement=min_improvement), Progress()
    if untrained is not None:
        progress.evaluated(untrained)
        assert (progress.best, progress.latest, progress.without_improvement(config)) == (None, None, 0)
    best_step = 1
    for step, (distance, without, best) in enumerate(rows, 1):
        best_step = step if progress.best is None or distance < progress.best.distance else best_step
        progress.step, progress.images = step, step * 1000
        progress.evaluated(distance)
        assert progress.without_improvement(config) == without
        assert progress.best == Evaluation(best_step, best_step * 1000, best)
        assert progress.latest == Evaluation(step, step * 1000, distance)
        assert progress.untrained == untrained


def test_of_equal_distances_the_first_is_best() -> None:
    evaluations = [Evaluation(step, step * 16, 5.0) for step in (1, 2, 3)]
    assert Progress(evaluations=evaluations).best == evaluations[0]


@pytest.mark.parametrize(
    ("patience", "min_improvement", "expected"),
    [(None, 0.1, False), (1, 0.1, True), (3, 0.1, True), (4, 0.1, False), (3, 0.01, False), (1, 0.01, False)],
)
def test_another_session_judges_all_evaluations_by_its_own_rule(
    patience: int | None, min_improvement: float, expected: bool
) -> None:
    creeping = Progress(evaluations=[Evaluation(step, step * 16, 100 - 4 * step) for step in range(5)])
    config = EvaluationConfig(patience=patience, min_improvement=min_improvement)
    assert (creeping.verdict(config) == "plateau") is expected


@pytest.mark.parametrize(("warm_up_kimg", "without"), [(0.0, 3), (1.9, 3), (2.0, 3), (2.1, 2), (4.0, 1), (4.1, 0)])
def test_what_comes_before_the_end_of_the_warm_up_does_not_try_patience(warm_up_kimg: float, without: int) -> None:
    worse = Progress(evaluations=[Evaluation(step, step * 1000, 100.0 + step) for step in (1, 2, 3, 4)])
    config = EvaluationConfig(warm_up_kimg=warm_up_kimg, patience=3)
    assert worse.without_improvement(config) == without
    assert worse.verdict(config) == ("plateau" if without == 3 else None)


@pytest.mark.parametrize(("target", "expected"), [(None, "plateau"), (49.9, "plateau"), (50.0, "target")])
def test_a_target_once_reached_ends_the_run(target: float | None, expected: str) -> None:
    """Whatever came after; the untrained generator cannot reach it."""
    config = EvaluationConfig(target=target, patience=1)
    begun = Progress(evaluations=[Evaluation(0, 0, 1.0)])
    assert begun.verdict(config) is None
    rows = [*begun.evaluations, Evaluation(1, 16, 50.0), Evaluation(2, 32, 60.0)]
    assert Progress(evaluations=rows).verdict(config) == expected


def test_progress_survives_being_written_down() -> None:
    evaluations = [Evaluation(0, 0, 9.5), Evaluation(3, 144, 1 / 3)]
    progress = Progress(step=3, critic_updates=9, batches=9, images=144, evaluations=evaluations)
    assert Progress.from_dict(json.loads(json.dumps(progress.as_dict()))) == progress


@pytest.mark.parametrize(
    ("half_life_kimg", "ramp_up", "images_seen", "images", "expected"),
    [
        (10.0, None, 0, 10_000, 0.5),
        (10.0, None, 50, 5_000, 0.5**0.5),
        (10.0, 0.05, 20_000, 1_000, 0.5),  # 5 % of 20 kimg: a half-life of 1 kimg
        (10.0, 0.05, 200_000, 10_000, 0.5),  # both limits meet
        (10.0, 0.05, 10_000_000, 10_000, 0.5),
        (10.0, 0.05, 0, 128, 0.0),
        (0.0, None, 1000, 128, 0.0),
        (0.0, 0.05, 1000, 128, 0.0),
    ],
)
def test_decay(half_life_kimg: float, ramp_up: float | None, images_seen: int, images: int, expected: float) -> None:
    ema = ExponentialMovingAverage(nn.Linear(1, 1), EmaConfig(half_life_kimg=half_life_kimg, ramp_up=ramp_up))
    assert ema.decay(images_seen, images) == pytest.approx(expected)


def test_after_a_half_life_half_of_the_old_weights_remain() -> None:
    """However the images are cut into steps."""
    for steps in (1, 7, 100):
        network = nn.Linear(2, 2).double()
        with torch.no_grad():
            network.weight.fill_(1.0)
        ema = ExponentialMovingAverage(network, EmaConfig(half_life_kimg=0.7, ramp_up=None))
        with torch.no_grad():
            network.weight.fill_(3.0)
        for _ in range(steps):
            ema.update(network, 10_000, round(700 / steps))
        torch.testing.assert_close(ema.network.weight, torch.full((2, 2), 2.0).double())


def test_average_covers_statistics_and_stays_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    ema = ExponentialMovingAverage(network, EmaConfig(half_life_kimg=1.0, ramp_up=None))
    before = {name: value.clone() for name, value in ema.network.state_dict().items()}
    network(torch.randn(8, 1, 4, 4))
    ema.update(network, 1000, 1000)
    assert not ema.network.training
    assert network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    for name, value in network.state_dict().items():
        wanted = value if name.endswith("num_batches_tracked") else (before[name] + value) / 2
        torch.testing.assert_close(ema.network.state_dict()[name], wanted)
    assert not torch.equal(ema.network.state_dict()["1.running_mean"], before["1.running_mean"])


def test_without_an_average_the_weights_themselves_are_measured() -> None:
    network = nn.Linear(3, 3)
    ema = ExponentialMovingAverage(network, EmaConfig(half_life_kimg=0.0))
    with torch.no_grad():
        network.weight.normal_()
    ema.update(network, 128, 128)
    assert torch.equal(ema.network.weight, network.weight)
