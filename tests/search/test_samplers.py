"""Samplers: random draws, grids, draws that learn, and repetitions with other seeds."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.search.expressions import Value
from distgan.search.optuna_samplers import STARTUP_TRIALS, OptunaSampler
from distgan.search.plan import SearchLimits
from distgan.search.record import Trial, TrialState
from distgan.search.samplers import Draw, FixedSampler, Sampler, SeedRepeats, grid_sampler, known_trials, random_sampler
from distgan.search.space import Space
from distgan.storage.storage import Storage
from driven import SEED, begin, drive, end
from search_records import PRESET, SPACE, finished, make_plan, make_trial

pytestmark = pytest.mark.timeout(120)

G, D = "optimizer.generator.lr", "optimizer.discriminator.lr"
STEPS, WEIGHT = "objective.critic_steps", "objective.gp_weight"
MIXED = Space.parse(
    {
        G: "loguniform(1e-6, 1e-1)",
        D: f"{G} * choice(0.5, 1, 2, 4)",
        STEPS: "choice(1, 3, 5)",
        WEIGHT: f"loguniform(0.01, 1000) if {STEPS} in (3, 5)",
        "discriminator.widths": "choice([8, 16], [16, 32], null, small)",
        "a": "randint(-3, 5)",
        "b": "lograndint(1, 100)",
        "c": "quniform(0, 1, 0.1)",
        "d": "quniform(10, 50, 10)",
        "e": "uniform(-1, 1)",
        "f": "choice(true, false, 1)",
    }
)
LISTS = Space.parse({name: entry.text for name, entry in MIXED.entries.items() if name not in "abdef"})
BOWL = Space.parse({G: "loguniform(1e-6, 1e-1)", STEPS: "choice(1, 3, 5)", WEIGHT: "uniform(-5, 5)"})


def bowl(trial: Trial) -> tuple[float, TrialState]:
    """Lowest, 0, at a rate of 1e-4, 3 steps and a weight of 2."""
    off = (math.log10(trial.draw[G]) + 4) ** 2 + (trial.draw[WEIGHT] - 2) ** 2
    return off + {1: 2.0, 3: 0.0, 5: 1.0}[trial.draw[STEPS]], "budget"


def values(space: Space, sampler: Sampler) -> list[dict[str, Value]]:
    return [trial.draw for trial in drive(sampler, space, lambda trial: (1.0, "budget"))]


def plain(draw: dict[str, Value]) -> Any:
    return json.loads(json.dumps(draw))


# Random draws and grids.


def test_the_first_random_draw_is_the_preset_and_others_are_their_numbers() -> None:
    space = Space.parse(SPACE)
    first = space.initial(load_config(PRESET))
    assert first is not None
    found = values(space, random_sampler(space, 7, 12, first))
    assert len(found) == 12
    assert found[0] == first
    assert found[1:] == [space.sample(7, number) for number in range(1, 12)]
    assert values(space, random_sampler(space, 7, 5, first)) == found[:5]
    assert values(space, random_sampler(space, 7, 5, None)) == [space.sample(7, 0), *found[1:5]]
    assert values(space, random_sampler(space, 8, 5, first))[1:] != found[1:5]
    config = load_config(PRESET)
    assert space.overrides(found[0])[G] == config.optimizer.generator.lr
    # Where the space does not have the preset's own values nothing is bent to it.
    beside = Space.parse({G: "loguniform(1e-3, 1e-2)"})
    assert beside.initial(config) is None


def test_a_grid_is_all_of_its_points() -> None:
    space = Space.parse({G: "loguniform(1e-4, 1e-2)", STEPS: "choice(1, 3, 5)"})
    found = values(space, grid_sampler(space, 3))
    assert found == [{G: rate, STEPS: steps} for rate in (1e-4, 1e-3, 1e-2) for steps in (1, 3, 5)]
    assert values(space, grid_sampler(space, 1)) == [{G: 1e-3, STEPS: steps} for steps in (1, 3, 5)]


# Repetitions.


def repeating(trials: int, seeds: int, top: int, *, higher: bool = False) -> tuple[SeedRepeats, Space]:
    plan = make_plan({G: "loguniform(1e-5, 1e-3)"}, higher_is_better=higher)
    space = Space.parse(plan.space)
    limits = SearchLimits(trials=trials, seeds=seeds, top=top)
    return SeedRepeats(random_sampler(space, 0, trials, None), plan, limits), space


def by_number(trial: Trial) -> tuple[float, TrialState]:
    """The best are 3, 0, 4, 1, 2 in this order; whatever a repetition has does not matter."""
    number = trial.number if trial.repeats is None else 0
    return [2.0, 4.0, 5.0, 1.0, 3.0][number], "budget"


@pytest.mark.parametrize(("higher", "best"), [(False, [3, 0]), (True, [2, 1])])
def test_the_best_are_repeated_with_new_seeds(higher: bool, best: list[int]) -> None:
    sampler, space = repeating(5, 3, 2, higher=higher)
    found = drive(sampler, space, by_number)
    assert [trial.number for trial in found] == list(range(9))
    assert [trial.repeats for trial in found] == [None] * 5 + [best[0]] * 2 + [best[1]] * 2
    assert [trial.seed - SEED for trial in found] == [0] * 5 + [1, 2, 1, 2]
    for trial in found[5:]:
        assert trial.overrides == found[trial.repeats or 0].overrides


def test_nothing_is_repeated_before_all_have_ended() -> None:
    sampler, space = repeating(3, 2, 2)
    trials: list[Trial] = []
    for number in range(3):
        draw = sampler.next(trials)
        assert isinstance(draw, Draw)
        assert draw.repeats is None
        trials.append(begin(draw, number, space))
    for number in (2, 0, 1):
        assert sampler.next(trials) == "wait"
        trials[number] = end(trials[number], by_number)
    draw = sampler.next(trials)
    assert isinstance(draw, Draw)
    assert (draw.repeats, draw.seed_offset) == (0, 1)


def test_repetitions_go_on_where_they_were_whatever_they_bring() -> None:
    sampler, space = repeating(4, 3, 3)
    whole = drive(sampler, space, by_number)
    assert len(whole) == 4 + 3 * 2
    for length in range(4, len(whole) + 1):
        # Some of the repetitions have not ended, some are far better than what they repeat.
        cut = [
            trial if trial.number < 4 else trial.model_copy(update={"state": state, "curve": [(20.0, -9.0)]})
            for trial, state in zip(whole[:length], ["begun", "budget", "failed"] * 4, strict=False)
        ]
        again = drive(sampler, space, by_number, cut)
        assert [(trial.repeats, trial.seed) for trial in again] == [(trial.repeats, trial.seed) for trial in whole]


def test_more_trials_after_repetitions() -> None:
    """A session with --trials 6 after one of 4: two new trials, drawn as if there had been 6 from the beginning."""
    sampler, space = repeating(4, 2, 1)
    first = drive(sampler, space, by_number)
    assert [trial.repeats for trial in first] == [None] * 4 + [3]
    sampler, _ = repeating(6, 2, 1)
    second = drive(sampler, space, lambda trial: (0.5 if trial.number == 6 else 9.0, "budget"), first)
    assert [trial.repeats for trial in second] == [None] * 4 + [3, None, None, 6]
    assert second[5].draw == space.sample(0, 4)
    assert second[6].draw == space.sample(0, 5)


def test_what_has_no_value_is_not_repeated() -> None:
    sampler, space = repeating(3, 2, 3)
    outcome: dict[int, tuple[float | None, TrialState]] = {0: (None, "failed"), 1: (5.0, "stopped")}
    found = drive(sampler, space, lambda trial: outcome.get(trial.number, (None, "diverged")))
    assert [trial.repeats for trial in found] == [None] * 3 + [1]


def test_no_repetitions_by_default() -> None:
    inner = FixedSampler([{G: 1e-4}])
    assert SeedRepeats(inner, make_plan(), SearchLimits()).next([make_trial(make_plan(), 0, state="begun")]) == "done"


# Draws that learn.


def model(kind: Literal["tpe", "bayes"], space: Space, seed: int, count: int, **more: Any) -> OptunaSampler:
    return OptunaSampler(kind, space, seed, count, **{"higher_is_better": False, **more})


def odd(trial: Trial) -> tuple[float | None, TrialState]:
    """Every way in which a trial ends."""
    states: Sequence[TrialState] = ("budget", "stopped", "diverged", "failed", "plateau", "mode collapse")
    state = states[trial.number % len(states)]
    return (None if state == "failed" else abs(math.log10(trial.draw[G]) + 4)), state


AGAIN = """
import json, sys
from distgan.search.optuna_samplers import OptunaSampler
from distgan.search.space import Space
from distgan.search.record import Trial
kind, space, trials = json.loads(sys.stdin.read())
trials = [Trial.model_validate(trial) for trial in trials]
draw = OptunaSampler(kind, Space.parse(space), 3, 99, higher_is_better=False).next(trials)
print(json.dumps(draw.values))
"""


@pytest.mark.parametrize("kind", ["tpe", pytest.param("bayes", marks=pytest.mark.slow)])
def test_a_draw_is_a_function_of_the_record(kind: Literal["tpe", "bayes"]) -> None:
    space = MIXED if kind == "tpe" else LISTS
    trials = drive(model(kind, space, 3, 12), space, odd)
    assert [trial.draw for trial in trials[:STARTUP_TRIALS]] == [
        plain(space.sample(3, number)) for number in range(STARTUP_TRIALS)
    ]
    for trial in trials:
        for name, distribution in space.free.items():
            value = trial.draw[name]
            assert distribution.contains(tuple(value) if isinstance(value, list) else value)
    trials[-1] = trials[-1].model_copy(update={"state": "begun"})
    draw = model(kind, space, 3, 99).next(trials)
    assert isinstance(draw, Draw)
    assert model(kind, space, 3, 99).next(trials) == draw
    assert model(kind, space, 4, 99).next(trials) != draw
    handed = json.dumps([kind, space.as_dict(), [trial.model_dump() for trial in trials]])
    other = subprocess.run([sys.executable, "-c", AGAIN], input=handed, capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == plain(draw.values)


@pytest.mark.parametrize("kind", ["tpe", "bayes"])
def test_it_begins_with_the_preset_and_ends_at_its_count(kind: Literal["tpe", "bayes"]) -> None:
    first: dict[str, Value] = {G: 2e-4, STEPS: 5, WEIGHT: 1.5}
    sampler = model(kind, BOWL, 0, 3, first=first)
    assert sampler.next([]) == Draw(first)
    trials = drive(sampler, BOWL, bowl)
    assert [trial.draw for trial in trials] == [first, BOWL.sample(0, 1), BOWL.sample(0, 2)]


@pytest.mark.parametrize(
    ("kind", "count", "seeds", "higher"), [("tpe", 40, 5, False), ("tpe", 40, 5, True), ("bayes", 14, 3, True)]
)
def test_it_finds_better_values_than_chance(
    kind: Literal["tpe", "bayes"], count: int, seeds: int, higher: bool
) -> None:
    sign = -1 if higher else 1

    def best(sampler: Sampler) -> float:
        trials = drive(sampler, BOWL, lambda trial: (sign * bowl(trial)[0], "budget"))
        assert len(trials) == count
        return min(bowl(trial)[0] for trial in trials)

    learned = [best(model(kind, BOWL, seed, count, higher_is_better=higher)) for seed in range(seeds)]
    chance = [best(random_sampler(BOWL, seed, count, None)) for seed in range(seeds)]
    assert statistics.median(learned) < statistics.median(chance) / 2, (learned, chance)


def states_of(sampler: OptunaSampler, trials: list[Trial]) -> list[optuna.trial.FrozenTrial]:
    return sampler._study(trials, len(trials)).trials


def test_how_optuna_is_told_of_trials() -> None:
    states: list[TrialState] = ["budget", "plateau", "target", "time", "stopped", "diverged", "failed", "begun"]
    plan = make_plan({G: "loguniform(1e-6, 1e-1)", STEPS: "choice(1, 3, 5)", WEIGHT: "uniform(-5, 5)"})
    trials = [
        make_trial(plan, number, state=state, curve=[(20.0, 3.0), (40.0, 1.0), (60.0, 2.0)])
        for number, state in enumerate(states)
    ]
    trials.append(make_trial(plan, 8, state="failed"))
    trials.append(make_trial(plan, 9))
    State = optuna.trial.TrialState  # noqa: N806
    found = states_of(model("tpe", BOWL, 0, 99), trials)
    assert [trial.state for trial in found] == [
        *[State.COMPLETE] * 4, *[State.PRUNED] * 3, State.RUNNING, State.PRUNED, State.RUNNING,
    ]  # fmt: skip
    assert [trial.value for trial in found[:4]] == [1.0] * 4, "a trial is as good as its best evaluation"
    assert found[4].intermediate_values == {20_000: 3.0, 40_000: 1.0, 60_000: 2.0}
    found = states_of(model("bayes", BOWL, 0, 99), trials)
    assert [trial.state for trial in found[:9]] == [*[State.COMPLETE] * 7, State.RUNNING, State.PRUNED]
    found = states_of(model("bayes", BOWL, 0, 99, higher_is_better=True), trials)
    assert found[4].value == 3.0


@pytest.mark.parametrize("kind", ["tpe", "bayes"])
def test_draws_beside_each_other_differ(kind: Literal["tpe", "bayes"]) -> None:
    trials = drive(model(kind, BOWL, 1, 14), BOWL, bowl)
    sampler = model(kind, BOWL, 1, 99)
    for number in range(14, 18):
        draw = sampler.next(trials)
        assert isinstance(draw, Draw)
        assert draw.values not in [trial.draw for trial in trials]
        trials.append(begin(draw, number, BOWL))
    rates = [math.log10(trial.draw[G]) for trial in trials[14:]]
    assert len(set(rates)) == 4


@pytest.mark.parametrize("kind", ["tpe", "bayes"])
def test_nothing_to_learn_from(kind: Literal["tpe", "bayes"]) -> None:
    """Trials of which none has a value."""
    found = drive(model(kind, BOWL, 0, 14), BOWL, lambda trial: (None, "failed"))
    assert len({trial.draw[G] for trial in found}) == 14


@pytest.mark.parametrize("kind", ["tpe", "bayes"])
def test_it_learns_from_few_values(kind: Literal["tpe", "bayes"]) -> None:
    """One value, and equal ones."""
    one = drive(
        model(kind, BOWL, 0, 13), BOWL, lambda trial: (1.0, "budget") if trial.number == 4 else (None, "failed")
    )
    equal = drive(model(kind, BOWL, 0, 13), BOWL, lambda trial: (1.0, "budget"))
    assert len(one) == len(equal) == 13


# What an earlier search has found.


def earlier(folder: Path, space: dict[str, str] = SPACE, **changes: Any) -> str:
    """A search of 30 trials that has ended, of which one is repeated."""
    plan = make_plan(space, **changes)
    record = finished(30, plan)
    record.trials.append(record.trials[1].model_copy(update={"number": 30, "repeats": 1}))
    record.trials.append(make_trial(plan, 31, state="begun", curve=[(20.0, 1.0)]))
    storage = Storage.open(str(folder)).child("earlier")
    record.save(storage)
    return storage.url


def test_trials_of_an_earlier_search_that_are_in_the_space(tmp_path: Path) -> None:
    url = earlier(tmp_path)
    plan = make_plan(warm_start=url, seed=9)
    found = known_trials(plan, Space.parse(SPACE))
    assert [trial.number for trial in found] == list(range(30))
    assert [trial.overrides for trial in found] == [trial.overrides for trial in finished(30).trials]
    for trial in found:
        assert Space.parse(SPACE).overrides(trial.draw) == pytest.approx(trial.overrides)
    narrow = Space.parse({**SPACE, G: "loguniform(1e-4, 2e-3)"})
    inside = known_trials(plan, narrow)
    assert {trial.number for trial in inside} == {trial.number for trial in found if trial.overrides[G] >= 1e-4}
    assert 0 < len(inside) < 30
    # A key that was not searched has the value of the earlier search's configuration.
    wider = Space.parse({**SPACE, "optimizer.generator.beta1": "choice(0, 0.5)"})
    assert len(known_trials(plan, wider)) == 30
    assert known_trials(plan.model_copy(update={"warm_start": None}), narrow) == []


def test_an_earlier_search_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    url = earlier(tmp_path)
    with pytest.raises(UserError, match=r"measured by fd_lite0_2k, and this search is by fid50k; ask for the same"):
        known_trials(make_plan(warm_start=url, metric="fid50k"), Space.parse(SPACE))
    with pytest.raises(UserError, match=r"none of its 32 trials is in this space"):
        known_trials(make_plan(warm_start=url), Space.parse({G: "loguniform(0.1, 0.2)"}))
    with pytest.raises(UserError, match=r"no search there"):
        known_trials(make_plan(warm_start=str(tmp_path / "gone")), Space.parse(SPACE))


@pytest.mark.parametrize("kind", ["tpe", "bayes"])
def test_a_warm_start_spares_the_random_trials(kind: Literal["tpe", "bayes"]) -> None:
    known = [end(begin(Draw(BOWL.sample(5, number)), number, BOWL), bowl) for number in range(30)]
    cold = drive(model(kind, BOWL, 0, 6), BOWL, bowl)
    warm = drive(model(kind, BOWL, 0, 6, earlier=known), BOWL, bowl)
    assert [trial.number for trial in warm] == list(range(6))
    assert statistics.median(bowl(trial)[0] for trial in warm) < statistics.median(bowl(trial)[0] for trial in cold)
    first: dict[str, Value] = {G: 2e-4, STEPS: 5, WEIGHT: 1.5}
    assert model(kind, BOWL, 0, 6, earlier=known, first=first).next([]) == Draw(first)
