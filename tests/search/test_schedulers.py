"""Tune's own schedulers as a search sets them up: rungs in kimg, and what they know of trials of earlier sessions."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from distgan.search.plan import SearchPlan
from distgan.search.ray.schedulers import build_scheduler, replay_trials
from distgan.search.record import Trial
from search_records import make_plan, make_trial

pytestmark = pytest.mark.timeout(60)

STOPPING = ("asha", "hyperband", "median")
Curve = list[tuple[float, float]]


@dataclass(eq=False)
class Standing:
    """As much of a Tune trial as schedulers look at."""

    trial_id: str
    config: dict[str, Any]


class Session:
    """A scheduler, asked as Tune asks it.

    There is no controller: a scheduler that wanted to know of other trials would fail.
    """

    def __init__(self, plan: SearchPlan, known: list[Trial] | None = None) -> None:
        self.scheduler: Any = build_scheduler(plan)
        replay_trials(self.scheduler, plan, known or [])
        self.trials: dict[int, Standing] = {}
        self.scores: dict[int, float] = {}

    def tell(self, number: int, kimg: float, value: float, **changes: Any) -> bool:
        """Whether the trial goes on after an evaluation."""
        if number not in self.trials:
            self.trials[number] = Standing(f"t{number}", {"number": number})
            self.scheduler.on_trial_add(None, self.trials[number])
        self.scores[number] = min(value, self.scores.get(number, math.inf))
        result = {"kimg": kimg, "score": self.scores[number], "exempt": False, "replayed": False} | changes
        decision = self.scheduler.on_trial_result(None, self.trials[number], result)
        if decision == TrialScheduler.STOP:
            self.scheduler.on_trial_complete(None, self.trials[number], result)
        assert decision in (TrialScheduler.STOP, TrialScheduler.CONTINUE)
        return bool(decision == TrialScheduler.CONTINUE)

    def run(self, number: int, curve: Curve, **changes: Any) -> float:
        """The kimg at which the trial ends."""
        for kimg, value in curve:
            if not self.tell(number, kimg, value, **changes):
                return kimg
        last = {"kimg": curve[-1][0], "score": self.scores[number], "exempt": False, "state": "budget"} | changes
        self.scheduler.on_trial_complete(None, self.trials[number], last)
        return curve[-1][0]


def plan_of(scheduler: str) -> SearchPlan:
    """240 kimg, rungs at 20, 60 and 180."""
    return make_plan(scheduler=scheduler)


def flat(value: float, every: float = 20.0, end: float = 240.0) -> Curve:
    return [(every * count, value) for count in range(1, round(end / every) + 1)]


@pytest.mark.parametrize("every", [1.0, 5.0, 20.0])
def test_rungs_are_in_kimg_however_often_a_trial_is_evaluated(every: float) -> None:
    session = Session(plan_of("asha"))
    assert session.run(0, flat(100.0, every)) == 240
    assert session.run(1, flat(200.0, every)) == 20
    # As good as the best at the first rung, and worse from then on.
    assert session.run(2, [(kimg, 100.0) for kimg, _ in flat(0, every)]) == 240
    better = [(kimg, 90.0 if kimg <= 40 else 80.0) for kimg, _ in flat(0, every)]
    assert session.run(3, better) == session.run(5, better) == 240
    assert session.run(4, flat(85.0, every)) == 60


def test_a_trial_is_judged_at_a_rung_once() -> None:
    """Evaluations at 100 and 120 are past the rungs at 20 and 60: neither is a result of 20 kimg."""
    session = Session(plan_of("asha"))
    for number in range(4):
        assert session.run(number, flat(100.0 + number, every=1.0, end=21.0)) in (20, 21)
    late = [(100.0, 150.0), (120.0, 150.0), (140.0, 50.0), (160.0, 50.0)]
    assert session.run(9, late) == 160
    for number in range(20, 24):
        assert session.tell(number, 20.0, 100.0), "a value of 140 kimg was taken for one of 20"


@pytest.mark.parametrize("scheduler", STOPPING)
def test_grace(scheduler: str) -> None:
    session = Session(plan_of(scheduler))
    for number in range(6):
        session.run(number, flat(100.0))
    for kimg in (1.0, 5.0, 19.9):
        assert session.tell(9, kimg, 900.0)
    assert session.run(9, flat(900.0)) <= 180


@pytest.mark.parametrize("scheduler", STOPPING)
def test_a_trial_at_its_end_says_itself_how_it_ended(scheduler: str) -> None:
    """Its last evaluation may be its target, which a scheduler does not know."""
    plan = make_plan(scheduler=scheduler, grace_kimg=240 / 27)
    session = Session(plan)
    for number in range(6):
        session.run(number, flat(100.0))
    assert session.tell(9, 240.0, 900.0)
    assert session.tell(9, 240.032, 900.0)


@pytest.mark.parametrize("scheduler", STOPPING)
def test_exempt_trials_are_neither_stopped_nor_counted(scheduler: str) -> None:
    session, without = Session(plan_of(scheduler)), Session(plan_of(scheduler))
    for number in range(6):
        assert session.run(number, flat(100.0)) == without.run(number, flat(100.0))
    for number in range(10, 16):
        assert session.run(number, flat(900.0), exempt=True) == 240
        assert session.run(number + 10, flat(1.0), exempt=True) == 240
    ends = []
    for number in range(30, 36):
        ends.append(session.run(number, flat(100.0 + number)))
        assert ends[-1] == without.run(number, flat(100.0 + number))
        assert session.run(number + 10, flat(99.0)) == without.run(number + 10, flat(99.0)) == 240
    assert min(ends) < 240


@pytest.mark.parametrize("scheduler", STOPPING)
def test_what_is_replayed_stops_nothing_and_counts(scheduler: str) -> None:
    session = Session(plan_of(scheduler))
    for number in range(6):
        session.run(number, flat(100.0))
    for kimg in (20.0, 40.0, 60.0, 80.0):
        assert session.tell(9, kimg, 900.0, replayed=True)
    # It goes on with this session, and is judged again where there is something to judge.
    assert not all(session.tell(9, kimg, 900.0) for kimg in (100.0, 180.0, 200.0))
    fresh = Session(plan_of(scheduler))
    for number in range(6):
        for kimg, value in flat(100.0, end=60.0):
            assert fresh.tell(number, kimg, value, replayed=True)
    assert not all(fresh.tell(9, kimg, 900.0) for kimg in (20.0, 40.0, 60.0))


@pytest.mark.parametrize("scheduler", STOPPING)
@pytest.mark.parametrize("higher", [False, True])
def test_a_new_session_decides_as_the_one_that_saw_all(scheduler: str, higher: bool) -> None:
    rng = np.random.default_rng(0)
    plan = make_plan(scheduler=scheduler, higher_is_better=higher)
    sign = -1 if higher else 1
    session, trials = Session(plan), []
    for number in range(12):
        floor = rng.uniform(100, 300)
        curve = [(kimg, floor + 500 * math.exp(-kimg / 50) * rng.uniform(0.8, 1.2)) for kimg, _ in flat(0)]
        end = session.run(number, curve)
        kept = [(kimg, sign * value) for kimg, value in curve if kimg <= end]
        state = "budget" if end == 240 else "stopped"
        trials.append(make_trial(plan, number, curve=kept, state=state))
    assert len({trial.state for trial in trials}) == 2
    trials.append(make_trial(plan, 12, curve=[(20.0, sign * 1.0)], state="budget", repeats=3))
    trials.append(make_trial(plan, 13, curve=[(20.0, sign * 1.0)], state="begun"))
    trials.append(make_trial(plan, 14, state="failed", curve=[(20.0, sign * 1.0)]))  # it is tried again
    for number, value in itertools.product(range(20, 26), (100.0, 150.0, 200.0, 300.0, 400.0)):
        again = Session(plan, trials)
        live = Session(plan)
        for trial in trials[:12]:
            live.run(trial.number, [(kimg, sign * value) for kimg, value in trial.curve])
        assert again.run(number, flat(value)) == live.run(number, flat(value))


@pytest.mark.parametrize("scheduler", STOPPING)
def test_a_trial_that_begins_again_after_a_fault_counts_once(scheduler: str) -> None:
    session, without = Session(plan_of(scheduler)), Session(plan_of(scheduler))
    for number, value in enumerate((100.0, 400.0, 900.0)):
        falling = [(kimg, value - kimg) for kimg, _ in flat(0, end=60.0)]
        for one in (session, without):
            for kimg, measured in falling:
                one.tell(number, kimg, measured, replayed=True)
        for _ in range(3):
            for kimg, measured in falling[:2]:
                assert session.tell(number, kimg, measured, replayed=True)
    for number, value in enumerate(range(300, 400, 2), 10):
        assert session.tell(number, 60.0, float(value)) == without.tell(number, 60.0, float(value))


def test_the_bracket_of_a_trial_is_its_numbers() -> None:
    plan = plan_of("hyperband")

    def first_rungs(order: list[int]) -> dict[int, float]:
        session = Session(plan)
        for number in order:
            session.tell(number, 1.0, 100.0)
        rungs = {number: session.scheduler._trial_info[f"t{number}"]._rungs for number in order}
        return {number: rungs[number][-1][0] for number in order}

    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    found = first_rungs(list(range(60)))
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]
    assert set(found.values()) == {20.0, 60.0, 180.0}
    np.random.seed(7)
    assert first_rungs(list(range(59, -1, -1))) == found


@pytest.mark.parametrize(("grace", "brackets"), [(240.0, 1), (100.0, 1), (60.0, 2), (20.0, 3), (1.0, 3)])
def test_no_bracket_is_without_a_rung(grace: float, brackets: int) -> None:
    scheduler: Any = build_scheduler(make_plan(scheduler="hyperband", grace_kimg=grace))
    assert [len(bracket._rungs) > 0 for bracket in scheduler._brackets] == [True] * brackets


def test_the_median_rule() -> None:
    session = Session(plan_of("median"))
    for number, value in enumerate((100.0, 200.0, 300.0)):
        assert session.run(number, flat(value)) == 240
    assert session.run(3, flat(199.0)) == 240
    # Of four others the median is 199.5.
    assert session.run(4, flat(201.0)) == 20
    assert session.run(5, [(20.0, 150.0), *flat(400.0)[1:]]) == 240, "a trial is judged by its best value"


def test_the_median_rule_never_makes_a_trial_wait() -> None:
    session = Session(plan_of("median"))
    assert session.run(0, flat(900.0)) == 240
    assert session.run(1, flat(100.0)) == 240


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # a percentile of infinities
@pytest.mark.parametrize("scheduler", STOPPING)
def test_no_score_and_an_infinite_one_do_no_harm(scheduler: str) -> None:
    session = Session(plan_of(scheduler))
    odd = Standing("odd", {"number": 50})
    session.scheduler.on_trial_add(None, odd)
    result = {"kimg": 20.0, "exempt": False}
    assert session.scheduler.on_trial_result(None, odd, result) == TrialScheduler.CONTINUE
    session.scheduler.on_trial_complete(None, odd, {**result, "state": "failed"})
    session.scheduler.on_trial_complete(None, odd, {})
    assert session.tell(51, 20.0, math.inf)
    for number in range(6):
        assert session.run(number, flat(100.0)) == 240
    assert min(session.run(number, flat(math.inf)) for number in range(60, 66)) < 240
    assert session.run(9, flat(99.0)) == 240


def test_a_search_without_stopping() -> None:
    for scheduler in ("none", "pbt", "pb2"):
        session = Session(plan_of(scheduler), [make_trial(plan_of("none"), 0, curve=flat(1.0), state="budget")])
        for number in range(6):
            assert session.run(number, flat(100.0 + number)) == 240
