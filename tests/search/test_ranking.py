"""Which trial of a search is best, and when one is as good as the target."""

from __future__ import annotations

import pytest

from distgan.search.plan import SearchLimits
from distgan.search.ranking import leaderboard, reached
from search_records import make_plan, make_record, make_trial

pytestmark = pytest.mark.timeout(60)


def test_a_repetition_counts_when_it_has_ended() -> None:
    plan = make_plan()
    trials = [
        make_trial(plan, 0, state="budget", curve=[(240.0, 100.0)]),
        make_trial(plan, 1, state="budget", curve=[(240.0, 110.0)]),
        make_trial(plan, 2, state="budget", curve=[(240.0, 120.0)], repeats=1),
        make_trial(plan, 3, state="begun", curve=[(20.0, 2000.0)], repeats=0),
        make_trial(plan, 4, state="begun", curve=[(20.0, 2000.0)], repeats=1),
    ]
    best, other = leaderboard(plan, trials)
    assert (best.trial.number, best.value, best.runs, best.best_run.number) == (1, 115.0, 2, 1)
    assert (other.trial.number, other.value, other.std) == (0, 100.0, None)


@pytest.mark.parametrize("higher", [False, True])
def test_the_target_is_the_one_of_this_session(higher: bool) -> None:
    plan, sign = make_plan(higher_is_better=higher), -1 if higher else 1
    curve = [(20.0, sign * 100.0), (40.0, sign * 150.0)]

    def is_reached(target: float | None, **changes: object) -> bool:
        trial = make_trial(plan, 0, curve=curve, **changes)
        return reached(make_record([trial], plan, limits=SearchLimits(target=target)))

    assert is_reached(sign * 100.0, state="target")
    assert is_reached(sign * 120.0, state="stopped"), "an easier one than that of an earlier session"
    assert not is_reached(sign * 80.0, state="target"), "a harder one"
    assert not is_reached(sign * 100.0, state="begun"), "how it ends is still to come"
    assert not is_reached(None, state="target")
