"""What passes between Tune and a search's state, with stand-ins for Tune's trials."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from distgan.search.plan import SearchLimits
from distgan.search.ray.hooks import SearchStopper, StateCallback, StateSearcher
from distgan.search.record import Trial
from distgan.search.samplers import SeedRepeats, random_sampler
from distgan.search.search_state import SearchState
from distgan.search.space import Space
from distgan.storage.storage import Storage
from search_records import SPACE, make_plan, make_record

pytestmark = pytest.mark.timeout(60)


@dataclass
class Standing:
    """As much of a Tune trial as the hooks look at."""

    config: dict[str, Any]
    last_result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def get_error(self) -> str | None:
        return self.error


@pytest.fixture
def state(tmp_path: Path) -> SearchState:
    plan, space = make_plan(), Space.parse(SPACE)
    proposals = SeedRepeats(random_sampler(space, 0, 2, None), plan, SearchLimits(trials=2, seeds=2, top=1))
    return SearchState(make_record([], plan), space, proposals, Storage.open(str(tmp_path)))


def test_trials_as_tune_asks_for_them(state: SearchState) -> None:
    proposing = StateSearcher(state, lambda trial: {"number": trial.number, "seed": trial.seed}, SearchStopper())
    first, second = proposing.suggest("a"), proposing.suggest("b")
    assert (first, second) == ({"number": 0, "seed": 0}, {"number": 1, "seed": 0})
    assert proposing.suggest("c") is None, "it asks again later"
    for number in (0, 1):
        state.evaluated(number, 20.0, 100.0 + number)
        state.ended(number, "budget")
    proposing.on_trial_complete("a", {"anything": 1}, error=True)
    assert proposing.suggest("c") == {"number": 2, "seed": 1}
    assert proposing.suggest("d") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("last", "end", "note"),
    [
        ({"state": "target", "kimg": 240.0}, "target", ""),
        ({"state": "begun", "kimg": 20.0}, "begun", ""),
        ({"state": "failed", "note": "no data there"}, "failed", "no data there"),
        ({"kimg": 60.0}, "stopped", ""),
        ({}, "stopped", ""),
    ],
)
def test_how_a_trial_ended(state: SearchState, last: dict[str, Any], end: str, note: str) -> None:
    recording, trial = StateCallback(state), Standing({"number": 0}, {"seconds": 7.0, **last} if last else {})
    state.next_trial()
    recording.on_trial_start(0, [], trial)
    assert state.snapshot().trials[0].state == "begun"
    recording.on_trial_result(1, [], trial, {"number": 0, "kimg": 20.0, "value": 5.0})
    recording.on_trial_result(1, [], trial, {"number": 0, "kimg": 30.0, "state": "budget"})
    recording.on_trial_complete(2, [], trial)
    (kept,) = state.snapshot().trials
    assert (kept.state, kept.note, kept.curve) == (end, note, [(20.0, 5.0)])
    assert kept.seconds == (7.0 if last else 0.0)


@pytest.mark.parametrize(
    ("error", "note"),
    [
        ("Traceback:\n  File x\nRuntimeError: out of memory\n\n", "RuntimeError: out of memory"),
        (None, "its process ended"),
        (" \n", "its process ended"),
    ],
)
def test_why_a_trial_failed(state: SearchState, error: str | None, note: str) -> None:
    state.next_trial()
    StateCallback(state).on_trial_error(0, [], Standing({"number": 0}, {"seconds": 3.0}, error))
    (trial,) = state.snapshot().trials
    assert (trial.state, trial.note, trial.seconds) == ("failed", note, 3.0)


def test_a_search_ends_as_its_trials_do(state: SearchState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Tune stops at once it kills ten seconds later."""
    ending = SearchStopper()
    proposing = StateSearcher(state, lambda trial: {"number": trial.number}, ending)
    assert proposing.suggest("a") == {"number": 0}
    assert not ending.stop_all()
    ending.begin("target")
    assert proposing.suggest("b") == Searcher.FINISHED
    assert len(state.snapshot().trials) == 1
    assert not ending.stop_all()
    assert not ending("a", {"kimg": 1.0})
    monkeypatch.setattr(SearchStopper, "PATIENCE_S", 0.0)
    ending.begin("target")
    assert ending.stop_all(), "trials that do not end are ended"


def test_tune_saves_nothing_of_a_book(state: SearchState) -> None:
    """It copies and pickles what it is given; locks and storages cannot be."""
    for hook in (StateSearcher(state, lambda trial: {}, SearchStopper()), StateCallback(state), SearchStopper()):
        assert copy.deepcopy(hook) is hook
        assert isinstance(pickle.loads(pickle.dumps(hook)), type(hook))
    assert isinstance(state.next_trial(), Trial)
