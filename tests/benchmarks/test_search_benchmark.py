"""The benchmark of searches: schedulers over curves made by hand, and a recording that resumes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray.tune.schedulers import FIFOScheduler, HyperBandScheduler, TrialScheduler
from torch import Tensor

from benchmarks.curves import SMALL, SPACE, Curve, Plan, Recording, record, record_curve
from benchmarks.replay import Outcome, Replay
from benchmarks.search import Searches, orders_of, replay_all, schedulers
from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.losses.bce import BinaryCrossEntropy
from distgan.losses.context import Context
from distgan.search.space import Space
from runs import script_distances

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

KIMG, EVERY = 36, 4


def curve(number: int, end: float) -> Curve:
    """Falls to `end`; curves of different ends never cross."""
    kimg = range(EVERY, KIMG + 1, EVERY)
    return Curve(number, {}, [(at, end * (1 + 1 / at)) for at in kimg], KIMG)


BEST, MIDDLE, WORST = curve(0, 100.0), curve(1, 200.0), curve(2, 300.0)


def search(scheduler: str, curves: list[Curve], at_once: int = 1) -> Outcome:
    return Replay(schedulers(KIMG, EVERY)[scheduler](), curves, at_once).run()


def test_all_curves_to_their_end_cost_everything() -> None:
    assert search("FIFO", [WORST, BEST, MIDDLE], 2) == Outcome(3 * KIMG, BEST.number, BEST.best)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_bad_curve_after_good_ones_is_stopped_where_it_is_first_measured(at_once: int) -> None:
    good = [curve(number, 100.0) for number in range(3)]
    assert search("ASHA, factor 3", [*good, replace(WORST, number=9)], at_once).kimg == 3 * KIMG + EVERY


def test_every_order_of_three_curves_costs_what_it_should() -> None:
    """The first runs to its end, later ones where they are the best yet; else they end at the first rung."""
    for order in itertools.permutations([BEST, MIDDLE, WORST]):
        leaders = [one for place, one in enumerate(order) if one.best == min(each.best for each in order[: place + 1])]
        assert search("ASHA, factor 3", list(order)) == Outcome(
            KIMG * len(leaders) + EVERY * (3 - len(leaders)), BEST.number, BEST.best
        )


@pytest.mark.parametrize("name", schedulers(KIMG, EVERY))
def test_every_scheduler_ends_every_trial_and_finds_the_best_of_curves_that_never_cross(name: str) -> None:
    np.random.seed(0)
    curves = [curve(number, 100.0 + number) for number in range(20)]
    for order in orders_of(curves, 5):
        outcome = search(name, order, 4)
        assert (outcome.winner, outcome.best) == (0, curves[0].best)
        assert outcome.kimg == 20 * KIMG if name == "FIFO" else 20 * EVERY < outcome.kimg < 0.8 * 20 * KIMG


@pytest.mark.parametrize("name", schedulers(KIMG, EVERY))
def test_a_diverged_trial_costs_what_it_was_trained(name: str) -> None:
    at_once = Curve(3, {}, [], 1.5, "diverged")
    later = Curve(4, {}, BEST.rows[:2], 10.0, "diverged")
    assert search(name, [at_once, later, BEST]).kimg == 1.5 + 10 + KIMG


def test_trials_that_wait_for_ever_are_told_of() -> None:
    """HyperBand's milestones at 1 and 3 kimg both lie before the first result, and nobody wakes the trials then."""
    scheduler = HyperBandScheduler(time_attr="kimg", metric="best", mode="min", max_t=KIMG)
    with pytest.raises(RuntimeError, match="wait for ever"):
        Replay(scheduler, [curve(number, 100.0) for number in range(30)], 4).run()


class Stops(FIFOScheduler):
    """Stops the trial that reports and all that wait, as schedulers may."""

    def on_trial_result(self, tune_controller, trial, result):  # type: ignore[no-untyped-def]
        for other in tune_controller.get_live_trials() - {trial}:
            tune_controller.stop_trial(other)
        return TrialScheduler.STOP


def test_a_scheduler_may_stop_trials_that_wait() -> None:
    assert Replay(Stops(), [WORST, BEST, MIDDLE], 1).run() == Outcome(EVERY, WORST.number, WORST.rows[0][1])


def test_shares_are_of_training_all_and_of_the_best() -> None:
    half = Outcome(1.5 * KIMG, MIDDLE.number, 1.05 * BEST.best)
    found = Searches.of([half, replace(half, best=1.2 * BEST.best)], [BEST, MIDDLE, WORST])
    assert found.costs == [0.5, 0.5]
    assert found.regrets == pytest.approx([0.05, 0.2])
    assert not found.is_good
    assert Searches([0.3, 0.3, 0.9], [0.0, 0.04, 0.2]).is_good
    assert Searches([0.3, 0.3, 0.9], [0.0, 0.04, 0.2]).within == pytest.approx(2 / 3)


def test_every_scheduler_sees_the_same_orders() -> None:
    recording = Recording({"kimg": KIMG, "every_kimg": EVERY}, [BEST, MIDDLE, WORST])
    found = replay_all(recording, orders=3, at_once=2)
    assert {len(one.costs) for one in found.values()} == {3}
    assert found == replay_all(recording, orders=3, at_once=2)


def test_a_recording_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_distances(monkeypatch, 300.04, 200.0)
    path = tmp_path / "curves.json"
    plan = Plan(2, kimg=0.064, every_kimg=0.032, images=32, seed=0, command="the first")
    kept = Curve(0, {"optimizer.generator.lr": 1e-5}, [(0.032, 500.0), (0.064, 400.0)], 0.064, seconds=1.0)
    Recording(plan.about(), [kept]).save(path)

    record(replace(plan, command="the second"), path)
    recorded = Recording.load(path)
    assert recorded.about["command"] == "the first"
    assert recorded.curves[0] == kept
    new = recorded.curves[1]
    assert (new.number, new.rows, new.kimg, new.diverged) == (1, [(0.032, 300.0), (0.064, 200.0)], 0.064, None)
    space = Space.parse(SPACE)
    assert new.overrides == space.overrides(space.sample(plan.seed, 1))

    with pytest.raises(UserError, match=r"was recorded with kimg=0\.064, not 0\.1; give another file"):
        record(replace(plan, trials=3, kimg=0.1), path)


def test_what_diverges_keeps_its_curve_until_there(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_distances(monkeypatch, 300.0)
    discriminator_loss = BinaryCrossEntropy.discriminator_loss

    def poisoned(self: BinaryCrossEntropy, real_logits: Tensor, fake_logits: Tensor, draws: Context) -> Tensor:
        loss = discriminator_loss(self, real_logits, fake_logits, draws)
        return loss * float("nan") if draws.update == 5 else loss

    monkeypatch.setattr(BinaryCrossEntropy, "discriminator_loss", poisoned)
    budget = ["training.kimg=0.192", "evaluation.every_kimg=0.064", "training.log_every=1"]
    recorded = record_curve(0, {}, load_config("quickstart", [*SMALL, *budget, f"data.url={data}"]), str(tmp_path))
    assert recorded.rows == [(0.064, 300.0)]
    assert recorded.kimg == 0.08  # the last step before the sixth, of 16 images each
    assert recorded.diverged is not None
    assert recorded.diverged.startswith("diverged at step 6")


def test_what_is_no_recording_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    for text in ("", "[]", '{"about": {}}', '{"about": {}, "curves": [{"rows": 1}]}'):
        path.write_text(text)
        with pytest.raises(UserError, match="no recording of curves"):
            Recording.load(path)
