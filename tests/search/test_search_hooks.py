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
    pickled_error_file: str = ""
    max_failures: int = -1

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
    assert proposing.suggest("d") is None, "this one may be lost, and is handed out again"
    state.hand_out_again(2)
    assert proposing.suggest("d") == {"number": 2, "seed": 1}
    state.ended(2, "stopped")
    assert proposing.suggest("e") == Searcher.FINISHED


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
    asked: list[int] = []
    recording, trial = (
        StateCallback(state, SearchStopper(), asked.append, lambda number, error: ""),
        Standing({"number": 0}, {"seconds": 7.0, **last} if last else {}),
    )
    state.next_trial()
    recording.on_trial_start(0, [], trial)
    assert state.snapshot().trials[0].state == "begun"
    recording.on_trial_result(1, [], trial, {"number": 0, "kimg": 20.0, "value": 5.0})
    recording.on_trial_result(1, [], trial, {"number": 0, "kimg": 30.0, "state": "budget"})
    recording.on_trial_complete(2, [], trial)
    (kept,) = state.snapshot().trials
    assert (kept.state, kept.note, kept.curve) == (end, note, [(20.0, 5.0)])
    assert kept.seconds == (7.0 if last else 0.0)
    assert asked == ([0] if end == "stopped" else []), "its actor may be kept while the run goes on"


def test_a_search_ends_as_its_trials_do(state: SearchState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Tune stops at once it kills ten seconds later."""
    ending = SearchStopper()
    proposing = StateSearcher(state, lambda trial: {"number": trial.number}, ending)
    assert proposing.suggest("a") == {"number": 0}
    assert not ending.stop_all()
    ending.running.add(0)
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
    for hook in (
        StateSearcher(state, lambda trial: {}, SearchStopper()),
        StateCallback(state, SearchStopper(), print, lambda number, error: ""),
        SearchStopper(),
    ):
        assert copy.deepcopy(hook) is hook
        assert isinstance(pickle.loads(pickle.dumps(hook)), type(hook))
    assert isinstance(state.next_trial(), Trial)


def test_a_trial_that_never_had_a_place_is_not_stopped(state: SearchState) -> None:
    """Where a search ends while it waits for nodes, the next session begins it."""
    ending = SearchStopper()
    state.next_trial()
    ending.begin("interrupted")
    assert ending.stop_all(), "no trial runs"
    StateCallback(state, ending, print, lambda number, error: "").on_trial_complete(0, [], Standing({"number": 0}))
    assert state.snapshot().trials[0].state == "waiting"


class TestLostActors:
    REASON = "runs/0000: worker 0 on 10.0.0.1: its process died; restarted 3 times"

    def callback(self, state: SearchState, failure: str) -> StateCallback:
        self.told: list[tuple[int, Exception | None]] = []

        def lost(number: int, error: Exception | None) -> str:
            self.told.append((number, error))
            return failure

        return StateCallback(state, SearchStopper(), print, lost)

    @pytest.mark.parametrize(("failure", "most"), [("", -1), (REASON, 0)])
    def test_tune_begins_it_again(self, state: SearchState, tmp_path: Path, failure: str, most: int) -> None:
        state.next_trial()
        file = tmp_path / "error.pkl"
        file.write_bytes(pickle.dumps(ConnectionError("reset")))
        trial = Standing({"number": 0}, pickled_error_file=str(file))
        self.callback(state, failure).on_trial_recover(0, [], trial)
        assert (str(self.told[0][1]), trial.max_failures) == ("reset", most)
        assert not state.snapshot().trials[0].ended

    def test_an_actor_that_was_lost_between_trials(self, state: SearchState) -> None:
        state.next_trial()
        self.callback(state, "").on_trial_error(0, [], Standing({"number": 0}))
        found = state.next_trial()
        assert isinstance(found, Trial)
        assert found.number == 0

    def test_one_that_may_not_begin_again(self, state: SearchState) -> None:
        state.next_trial()
        self.callback(state, self.REASON).on_trial_error(0, [], Standing({"number": 0}, {"seconds": 3.0}))
        (trial,) = state.snapshot().trials
        assert (trial.state, trial.note, trial.seconds) == ("failed", self.REASON, 3.0)


def test_how_long_a_trial_takes_to_start(state: SearchState) -> None:
    state.next_trial()
    state.trains(0)
    first = state.snapshot().trials[0].start_seconds
    state.trains(0)  # after a restart
    assert 0 < first == state.snapshot().trials[0].start_seconds < 60
