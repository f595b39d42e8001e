"""Counters and the moving average of weights: plain arithmetic."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from distgan.config.schedule import Schedule
from distgan.config.schema import EmaConfig
from distgan.evaluation.evaluator import Scores
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.progress import Pending, Progress, StepScores, due


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


def test_progress_survives_being_written_down() -> None:
    evaluations = [StepScores(0, 0, 9.5), StepScores(3, 144, 1 / 3, {"kernel": -1e-5})]
    pending = Pending(4, 192)
    progress = Progress(
        step=4, discriminator_updates=12, batches=12, images=192, evaluations=evaluations, pending=pending
    )
    assert Progress.from_dict(json.loads(json.dumps(progress.as_dict()))) == progress


def test_scores_belong_to_the_pending_checkpoint() -> None:
    progress = Progress(step=9, images=432, pending=Pending(4, 192))
    progress.add_scores(Scores(5.0, {"recall": 0.25}, 1.0, {}))
    progress.add_scores(Scores(4.0, {}, 1.0, {}))
    assert progress.evaluations == [StepScores(4, 192, 5.0, {"recall": 0.25}), StepScores(9, 432, 4.0)]
    assert progress.pending is None


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


def test_a_half_life_follows_its_schedule() -> None:
    schedule = Schedule(from_=0, to=10, from_kimg=20, until_kimg=40, shape="linear")
    ema = ExponentialMovingAverage(nn.Linear(1, 1), EmaConfig(half_life_kimg=schedule, ramp_up=None))
    assert ema.decay(20_000, 128) == 0
    assert ema.decay(30_000, 5_000) == pytest.approx(0.5)
    assert ema.decay(90_000, 10_000) == pytest.approx(0.5)


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
