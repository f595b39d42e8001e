"""Schedules as values of configuration keys."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from command_line import Cli, one_line
from distgan.config.load import dump_config, load_config, parse_config
from distgan.config.resume_rules import lasting_differences, training_differences
from distgan.config.schedule import Schedule, find_schedules, value_at
from distgan.errors import UserError
from messages import NOT_ALLOWED, by_kind

LR = "optimizer.generator.lr"


def schedule(start: float, end: float, **more: Any) -> Schedule:
    return Schedule.model_validate({"from": start, "to": end, "until_kimg": 40.0, **more})


def test_values_by_hand() -> None:
    linear = schedule(2.0, 1.0, shape="linear", from_kimg=20)
    assert [linear.at(kimg) for kimg in (0, 20, 25, 30, 40, 1e6)] == [2.0, 2.0, 1.75, 1.5, 1.0, 1.0]
    cosine = schedule(0.0, 4.0)
    wanted = [0, 4 * (1 - math.sqrt(0.5)) / 2, 2, 4 * (1 + math.sqrt(0.5)) / 2, 4, 4]
    assert [cosine.at(kimg) for kimg in (0, 10, 20, 30, 40, 41)] == pytest.approx(wanted, rel=1e-14)
    assert value_at(cosine, 40) == 4.0
    assert value_at(3.0, 40) == 3.0


def test_a_cosine_is_one() -> None:
    found = schedule(3.0, -1.0)
    for images in range(0, 40_000, 37):
        wanted = -1 + 4 * (1 + math.cos(math.pi * images / 40_000)) / 2
        assert found.at(images / 1000) == pytest.approx(wanted, abs=1e-14)


def test_a_range_holds_for_all_values() -> None:
    assert schedule(1.0, 0.0) > 0
    assert not schedule(0.0, 0.0) > 0
    assert not schedule(1.0, -1.0) > 0
    assert schedule(1.0, 0.0) >= 0
    assert schedule(0.9, 0.99) < 1
    assert not schedule(0.9, 1.0) < 1
    assert schedule(0.9, 1.0) <= 1


OTHER_KEY = r"[\w.]+: a schedule has no key '\w+'; its keys are from, to, "
NOT_SET = r"[\w.]+: not set; allowed: \w+"
WRONG = {
    NOT_ALLOWED: [
        LR + "={from: 0.1, to: 2, until_kimg: 1000}",
        LR + "={from: x, to: 1, until_kimg: 1000}",
        LR + "={from: .nan, to: 1, until_kimg: 1000}",
        LR + "={from: 1, to: 0.1, until_kimg: 0}",
        LR + "={from: 1, to: 0.1, until_kimg: 9, shape: sine}",
        LR + "=[1]",
        "optimizer.generator.beta2={from: 0.9, to: 1, until_kimg: 9}",
        "objective.r1_weight={from: -1, to: 0, until_kimg: 9}",
        "training.batch_size={from: 8, to: 16, until_kimg: 9}",
    ],
    OTHER_KEY: [LR + "={from: 0.1, until: 9, to: 1}"],
    NOT_SET: [LR + "={from: 0.1, until_kimg: 1000}"],
    r"[\w.]+: until_kimg=9 must be more than from_kimg=9": [LR + "={from: 1, to: 0.1, from_kimg: 9, until_kimg: 9}"],
    r"'lr' is a value, not a section": [LR + ".to=0"],
}


@pytest.mark.parametrize(("kind", "override"), by_kind(WRONG))
def test_what_is_no_schedule(kind: str, override: str, cli: Cli, same_words: Callable[..., None]) -> None:
    message = one_line(cli("train", "quickstart", override, "--dry-run"))
    assert re.search(kind, message), message
    same_words(message)


def test_a_configuration_with_schedules_reads_as_it_is_written() -> None:
    overrides = {
        LR: {"from": 2e-4, "to": 5e-5, "until_kimg": 300},
        "objective.r1_weight": {"from": 10, "to": 1, "until_kimg": 100, "shape": "linear"},
        "training.augment_probability": {"from": 0, "to": 0.3, "until_kimg": 50},
    }
    config = load_config("wgan-gp-faces", {"objective": {"name": "hinge"}, **overrides})
    assert parse_config(dump_config(config), "copy") == config
    assert dict(find_schedules(config)).keys() == overrides.keys()
    assert dict(find_schedules(config))["objective.r1_weight"].at(50) == 5.5
    changed = load_config("sngan-cifar", ["optimizer.lr_factor.until_kimg=20000"])
    assert value_at(changed.optimizer.lr_factor, 10_000) == 0.5


def test_a_branch_may_change_a_schedule_and_a_resume_may_not(cli: Cli) -> None:
    old = load_config("wgan-gp-faces", [LR + "={from: 1e-3, to: 1e-4, until_kimg: 10}"])
    new = load_config("wgan-gp-faces", [LR + "=1e-3", "objective.gp_weight={from: 10, to: 1, until_kimg: 10}"])
    assert training_differences(old, new).keys() == {LR, "objective.gp_weight"}
    assert lasting_differences(old, new) == {}
    ema = load_config("wgan-gp-faces", ["ema.half_life_kimg={from: 0, to: 10, until_kimg: 10}"])
    assert lasting_differences(old, ema).keys() == {"ema.half_life_kimg"}


def test_a_penalty_never_comes_or_goes_with_a_schedule() -> None:
    config = load_config("sagan-cifar", ["objective.r1_weight={from: 0, to: 1, until_kimg: 10}"])
    assert lasting_differences(load_config("sagan-cifar"), config).keys() == {"objective.r1_weight"}
    assert lasting_differences(load_config("sagan-cifar", ["objective.r1_weight=2"]), config) == {}


def test_a_schedule_of_a_number_that_has_none() -> None:
    with pytest.raises(UserError, match=r"objective.label_noise=\{.*: allowed: number at least 0, at most 1$"):
        load_config("quickstart", ["objective.label_noise={from: 0, to: 1, until_kimg: 9}"])
