"""The state of a search: what is in `search.json` when, and what a killed search resumes with."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distgan.errors import UserError
from distgan.search.plan import SearchLimits, SearchPlan
from distgan.search.record import FILE, SearchRecord, Trial, TrialState, read_record, require_record
from distgan.search.samplers import Draw, FixedSampler, SeedRepeats, Suggestion, random_sampler
from distgan.search.search_state import SearchState
from distgan.search.space import Space
from distgan.storage.storage import Storage, UnavailableError
from search_records import SPACE, finished, make_plan, make_record, make_trial

pytestmark = pytest.mark.timeout(60)

LISTS = {"optimizer.generator.lr": "loguniform(1e-5, 1e-3)", "discriminator.widths": "choice([8, 16], [16, 32])"}


def make_book(folder: Storage, count: int = 4, seeds: int = 1, space: dict[str, str] = SPACE) -> SearchState:
    """A state that goes on with the record in its folder, or begins one."""
    plan = make_plan(space)
    record = read_record(folder) or make_record([], plan)
    limits = SearchLimits(trials=count, seeds=seeds, top=1)
    parsed = Space.parse(space)
    return SearchState(record, parsed, SeedRepeats(random_sampler(parsed, 0, count, None), plan, limits), folder)


def kept(folder: Storage) -> list[Trial]:
    return require_record(folder.url).trials


def next_trial(state: SearchState) -> Trial:
    found = state.next_trial()
    assert isinstance(found, Trial)
    return found


@pytest.fixture(params=["files", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = str(tmp_path) if request.param == "files" else request.getfixturevalue("bucket")
    return Storage.open(url).child("search")


def test_storage_that_is_away_is_waited_for(folder: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    state, write, away = make_book(folder), Storage.write_bytes, ["refused", "refused"]

    def refused(self: Storage, name: str, data: bytes) -> None:
        if away:
            raise UnavailableError(f"{self.url}/{name}: {away.pop()}")
        write(self, name, data)

    monkeypatch.setattr(Storage, "write_bytes", refused)
    monkeypatch.setattr("distgan.storage.retry._FIRST_PAUSE_S", 0.01)
    first = next_trial(state)
    assert not away
    assert kept(folder) == [first]
    state.raise_failure()


def test_every_change_is_kept_before_it_has_effects(folder: Storage) -> None:
    state = make_book(folder)
    assert read_record(folder) is None
    first = next_trial(state)
    assert kept(folder) == [first]
    assert (first.number, first.state, first.name, first.seed) == (0, "waiting", "0000", make_plan().config["seed"])
    state.started(0)
    assert kept(folder)[0].state == "begun"
    state.evaluated(0, 40.0, 300.0)
    state.evaluated(0, 20.0, 500.0)
    state.evaluated(0, 40.0, 250.0)
    assert kept(folder)[0].curve == [(20.0, 500.0), (40.0, 250.0)]
    assert (state.kimg_of(0), state.kimg) == (40.0, 40.0)
    second = next_trial(state)
    assert [trial.number for trial in kept(folder)] == [0, second.number] == [0, 1]
    state.ended(0, "begun", seconds=3.0)
    state.ended(0, "failed", "RuntimeError: no", 4.0)
    trial = kept(folder)[0]
    assert (trial.state, trial.note, trial.seconds) == ("failed", "RuntimeError: no", 7.0)
    assert state.close("interrupted") == require_record(folder.url)
    assert require_record(folder.url).ended == "interrupted"


def test_lists_survive_the_record(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    state = make_book(folder, space=LISTS)
    found = [next_trial(state) for _ in range(4)]
    assert kept(folder) == found
    assert all(trial.draw["discriminator.widths"] in ([8, 16], [16, 32]) for trial in found)
    assert state.next_trial() == "done"


@pytest.mark.parametrize("value", [1e-320, 0.1 + 0.2, 1e300, -0.5])
def test_no_digit_of_a_value_is_lost(tmp_path: Path, value: float) -> None:
    folder = Storage.open(str(tmp_path))
    state = make_book(folder)
    next_trial(state)
    state.evaluated(0, 20.0, value)
    assert kept(folder)[0].curve == [(20.0, value)]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_is_no_evaluation(tmp_path: Path, value: float) -> None:
    """JSON has none of them: a record with one could not be read again."""
    folder = Storage.open(str(tmp_path))
    state = make_book(folder)
    next_trial(state)
    state.evaluated(0, 20.0, 100.0)
    state.evaluated(0, 40.0, value)
    assert kept(folder)[0].curve == [(20.0, 100.0)]


def test_a_killed_search_goes_on_with_what_had_begun(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    state = make_book(folder, 6)
    for _ in range(4):
        next_trial(state)
    for number in (0, 1, 3):
        state.started(number)
    state.ended(1, "stopped")
    state.evaluated(3, 20.0, 100.0)
    del state
    for _ in range(2):  # killed again before anything has happened
        again = make_book(folder, 6)
        assert [next_trial(again).number for _ in range(5)] == [0, 2, 3, 4, 5]
        assert again.next_trial() == "done"
        assert len(kept(folder)) == 6
    whole = Storage.open(str(tmp_path)).child("whole")
    one = make_book(whole, 6)
    drawn = [next_trial(one) for _ in range(6)]
    assert [trial.overrides for trial in drawn] == [trial.overrides for trial in kept(folder)]


def test_what_failed_is_tried_again_in_the_next_session(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    state = make_book(folder, count=2)
    first, second = next_trial(state), next_trial(state)
    state.ended(first.number, "failed", "its node was lost")
    state.ended(second.number, "budget")
    assert state.next_trial() == "done"
    again = make_book(folder, count=2)
    assert next_trial(again).number == first.number
    assert again.next_trial() == "done"


def test_a_trial_is_handed_out_once(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    state = make_book(folder, 2, seeds=2)
    first, second = next_trial(state), next_trial(state)
    assert state.next_trial() == "wait"
    state.ended(first.number, "begun")  # it goes on in another session
    assert state.next_trial() == "wait"
    state.evaluated(first.number, 20.0, 100.0)
    state.ended(first.number, "budget")
    assert state.next_trial() == "wait"
    state.ended(second.number, "failed")
    repetition = next_trial(state)
    assert (repetition.number, repetition.repeats, repetition.seed) == (2, 0, first.seed + 1)
    assert state.next_trial() == "done"


def test_the_best_are_not_repeated_before_a_failed_trial_is_tried_again(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    state = make_book(folder, 2, seeds=2)
    states: list[TrialState] = ["budget", "failed"]
    for number, end in enumerate(states):
        assert next_trial(state).number == number
        state.evaluated(number, 20.0, 100.0)
        state.ended(number, end)
    again = make_book(folder, 2, seeds=2)
    assert next_trial(again).number == 1
    assert again.next_trial() == "wait"
    again.ended(1, "budget")
    assert next_trial(again).repeats == 0


def test_numbers_are_unique_whoever_asks(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    state = make_book(folder, 40)
    together = threading.Barrier(8)

    def work(_: int) -> list[int]:
        together.wait(timeout=20)
        found = []
        while isinstance(trial := state.next_trial(), Trial):
            found.append(trial.number)
            state.started(trial.number)
            state.evaluated(trial.number, 20.0, float(trial.number))
            assert state.snapshot().trials[trial.number].state == "begun"
            state.ended(trial.number, "budget", seconds=1.0)
        return found

    with ThreadPoolExecutor(8) as pool:
        found = [number for numbers in pool.map(work, range(8)) for number in numbers]
    assert sorted(found) == list(range(40))
    assert [trial.number for trial in kept(folder)] == list(range(40))
    assert {(trial.state, trial.latest) for trial in kept(folder)} == {("budget", float(n)) for n in range(40)}
    assert state.kimg == 40 * 20


def test_what_it_hands_out_is_not_what_it_keeps(tmp_path: Path) -> None:
    state = make_book(Storage.open(str(tmp_path)))
    next_trial(state).curve.append((1.0, 2.0))
    state.snapshot().trials[0].state = "failed"
    assert state.snapshot().trials[0].curve == []
    assert state.snapshot().trials[0].state == "waiting"


class Broken:
    """Proposals that cannot go on."""

    def next(self, trials: Sequence[Trial]) -> Suggestion:
        raise UserError("the population: none lives")


def test_what_cannot_be_proposed_leaves_no_trial(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    plan = make_plan()
    state = SearchState(make_record([], plan), Space.parse(SPACE), Broken(), folder)
    with pytest.raises(UserError, match="none lives"):
        state.next_trial()
    assert state.snapshot().trials == []


def test_a_trial_that_cannot_be_kept_is_not_begun(tmp_path: Path) -> None:
    """The disk is full, or the store away, as it is drawn: the next one has its number."""
    (tmp_path / FILE).mkdir()
    space = Space.parse(SPACE)
    state = SearchState(
        make_record([], make_plan()), space, FixedSampler([space.sample(0, 0)]), Storage.open(str(tmp_path))
    )
    with pytest.raises(UserError):
        state.next_trial()
    (tmp_path / FILE).rmdir()
    assert next_trial(state).number == 0


def first_trial(key: str, text: str) -> Callable[[str], str]:
    """Other JSON as a value of the first trial."""

    def inflict(record: str) -> str:
        tree = json.loads(record)
        tree["trials"][0][key] = "HERE"
        return json.dumps(tree).replace('"HERE"', text)

    return inflict


DAMAGED: dict[str, tuple[Callable[[str], str], str]] = {
    "no number": (first_trial("seconds", "NaN"), "NaN is no number"),
    "beyond a float": (first_trial("seconds", "1e999"), "the number 1e999 is too large"),
    "of 400 digits": (first_trial("generation", "1" + "0" * 400), "is too large"),
    "a text that is no number": (first_trial("curve", '[["5", "nan"]]'), r"trials\.0\.curve.*finite number"),
    "values without a sum": (first_trial("curve", "[[5, 1e308]]"), r"trials\.0\.curve.*less than or equal to"),
    "time that went back": (first_trial("seconds", "-1"), r"trials\.0\.seconds.*greater than"),
    "a parent that is not there": (first_trial("parent", "99"), "trial 0 is at the wrong place"),
    "a repetition of itself": (first_trial("repeats", "0"), "trial 0 is at the wrong place"),
    "another number": (first_trial("number", "7"), "trial 0 is at the wrong place"),
    "no budget": (lambda text: re.sub('"kimg": [0-9.]+', '"kimg": "many"', text), "training.kimg or seed is not a"),
    "no space": (lambda text: text.replace("loguniform(2e-5, 2e-3)", "(((("), "cannot be read"),
    "deep": (lambda text: "[" * 100_000, "nested too deeply"),
    "many keys": (
        lambda text: text.replace("{", "{" + "".join(f'"k{number}": 1,' for number in range(100_000)), 1),
        "Extra inputs are not permitted",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.timeout(30)
def test_a_record_that_none_is_is_one_line(damage: str, tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path))
    finished(3).save(folder)
    inflict, reason = DAMAGED[damage]
    text = (tmp_path / FILE).read_text()
    assert inflict(text) != text
    (tmp_path / FILE).write_text(inflict(text))
    with pytest.raises(UserError, match=rf"search\.json: not a search that .*{reason}") as caught:
        read_record(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", ["fast", -1.0, None, [1], {"a": 1}, 1e14])
@pytest.mark.parametrize("table", ["draw", "overrides"])
def test_values_that_no_draw_gives_are_no_record(value: object, table: str, tmp_path: Path) -> None:
    folder, record = Storage.open(str(tmp_path)), finished(3)
    getattr(record.trials[1], table)["optimizer.generator.lr"] = value
    record.save(folder)
    with pytest.raises(UserError, match=r"\(trial 1: optimizer.generator.lr has a value that is not in the space\)"):
        read_record(folder)
    record.trials[1].draw.clear()
    record.save(folder)
    with pytest.raises(UserError, match="not in the space"):
        read_record(folder)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record: SearchRecord = finished(30)
    folder = Storage.open(str(tmp_path))
    record.save(folder)
    assert read_record(folder) == record
    plan: SearchPlan = make_plan(warm_start="/other", grace_kimg=1 / 3)
    draw = Draw(Space.parse(SPACE).sample(0, 0))
    trial = make_trial(plan, 0, draw=draw.values)
    make_record([trial], plan).save(folder)
    assert read_record(folder) == make_record([trial], plan)
