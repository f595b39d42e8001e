"""Population-based training as trials: which take over whose state, and the runs that they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.search.expressions import Value
from distgan.search.plan import SearchLimits, SearchPlan
from distgan.search.planning import SearchSpec
from distgan.search.record import SearchRecord, Trial, TrialState, kimg_of, read_record
from distgan.search.samplers import Draw, PopulationSampler, generation_count, generation_end
from distgan.search.space import Space
from distgan.storage.storage import Storage
from driven import begin, end
from search_records import make_plan

pytestmark = pytest.mark.timeout(60)

G, WEIGHT = "optimizer.generator.lr", "objective.gp_weight"
SPACE = {G: "loguniform(1e-5, 1e-2)", WEIGHT: "uniform(1, 100)"}
MEMBERS, INTERVAL = 4, 50.0


def make(
    scheduler: str = "pbt", first: dict[str, Value] | None = None, **changes: Any
) -> tuple[PopulationSampler, SearchPlan]:
    """Four members; 240 kimg are four generations of 50 and one of 40."""
    plan = make_plan(SPACE, **{"scheduler": scheduler, "interval_kimg": INTERVAL, **changes})
    return PopulationSampler(plan, SearchLimits(trials=MEMBERS), Space.parse(SPACE), first), plan


def far(trial: Trial) -> tuple[float | None, TrialState]:
    """How far the rate is from 1e-3."""
    return abs(math.log10(trial.draw[G]) + 3), "budget"


def fails(*numbers: int, state: TrialState = "failed") -> Any:
    """As `far`, but these trials fail, whatever they have measured."""
    return lambda trial: (far(trial)[0], state if trial.number in numbers else "budget")


def drive(
    sampler: PopulationSampler,
    plan: SearchPlan,
    objective: Any = far,
    trials: list[Trial] | None = None,
    until: int = 99,
) -> list[Trial]:
    found = list(trials or [])
    while len(found) < until and isinstance(draw := sampler.next(found), Draw):
        trial = begin(draw, len(found), Space.parse(plan.space))
        found.append(end(trial, objective, generation_end(plan, trial.generation)))
    return found


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_population_to_its_end(scheduler: str) -> None:
    first: dict[str, Value] = {G: 2e-4, WEIGHT: 10.0}
    sampler, plan = make(scheduler, first)
    trials = drive(sampler, plan)
    assert sampler.next(trials) == "done"
    assert generation_count(plan) == 5
    assert [trial.generation for trial in trials] == [place for place in range(5) for _ in range(MEMBERS)]
    assert [trial.draw for trial in trials[:4]] == [first, *(Space.parse(SPACE).sample(0, n) for n in (1, 2, 3))]
    assert [trial.parent for trial in trials[:4]] == [None] * 4
    for generation in range(1, 5):
        before = trials[(generation - 1) * 4 : generation * 4]
        ranked = sorted(before, key=lambda trial: trial.latest or 0.0)
        for place, trial in enumerate(trials[generation * 4 : generation * 4 + 4]):
            assert trial.parent is not None
            if before[place] is ranked[-1]:
                assert trial.parent == ranked[0].number
                assert trial.draw != before[place].draw
            else:
                assert trial.parent == before[place].number
                assert trial.draw == before[place].draw
            assert trial.overrides == trial.draw
    assert kimg_of(trials) == pytest.approx(4 * 240)
    last = min(far(trial)[0] or 0.0 for trial in trials[-4:])
    assert last <= min(far(trial)[0] or 0.0 for trial in trials[:4])


WIDE = {
    G: "loguniform(1e-5, 1e-2)",
    "optimizer.discriminator.lr": f"2 * {G} / uniform(0.3, 4)",
    WEIGHT: "quniform(0.3, 12.3, 0.1) if objective.critic_steps in (2, 3)",
    "objective.critic_steps": "lograndint(1, 9)",
    "optimizer.generator.betas": "choice([0, 0.9], [0.5, 0.999], [0.5, 0.9])",
    "optimizer.generator.weight_decay": "choice(0, 1e-4, null)",
}


@pytest.mark.parametrize(("scheduler", "space"), [("pbt", WIDE), ("pbt", SPACE), ("pb2", SPACE)])
@pytest.mark.parametrize("seed", range(4))
def test_the_record_of_a_population_can_be_read(
    scheduler: str, space: dict[str, str], seed: int, tmp_path: Path
) -> None:
    plan = make_plan(space, scheduler=scheduler, interval_kimg=INTERVAL, seed=seed)
    trials = drive(PopulationSampler(plan, SearchLimits(trials=6), Space.parse(space), None), plan)
    assert any(trial.parent is not None and trial.draw != trials[trial.parent].draw for trial in trials)
    search = Storage.open(str(tmp_path))
    record = SearchRecord(name="rates", plan=plan, limits=SearchLimits(trials=6), trials=trials)
    record.save(search)
    found = read_record(search)
    assert found is not None
    assert found.model_dump(mode="json") == record.model_dump(mode="json")


def test_a_generation_waits_for_all_of_the_one_before() -> None:
    sampler, plan = make()
    space = Space.parse(plan.space)
    trials: list[Trial] = []
    for number in range(4):
        draw = sampler.next(trials)
        assert isinstance(draw, Draw)
        trials.append(begin(draw, number, space))
    for number in (3, 0, 2, 1):
        assert sampler.next(trials) == "wait"
        trials[number] = end(trials[number], far, 50.0)
    draw = sampler.next(trials)
    assert isinstance(draw, Draw)
    assert draw.generation == 1
    trials.append(begin(draw, 4, space))
    # Of this one they all begin at once.
    assert isinstance(sampler.next(trials), Draw)


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
@pytest.mark.parametrize("state", ["failed", "diverged", "mode collapse"])
def test_a_member_that_failed_takes_over_another(scheduler: str, state: TrialState) -> None:
    sampler, plan = make(scheduler)
    trials = drive(sampler, plan, fails(1, 6, state=state))
    assert len(trials) == 20
    for failed in (1, 6):
        follower = trials[failed + 4]
        assert follower.parent not in (failed, None)
        assert far(trials[follower.parent or 0])[0] == min(
            far(trial)[0] for trial in trials[failed // 4 * 4 : failed // 4 * 4 + 4] if trial.number != failed
        )
    assert not {trial.parent for trial in trials} & {1, 6}


def test_a_population_of_which_none_lives_ends_with_words() -> None:
    sampler, plan = make()
    with pytest.raises(UserError, match="none of its 4 members came through generation 0"):
        drive(sampler, plan, fails(0, 1, 2, 3))


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_population_goes_on_in_the_middle(scheduler: str) -> None:
    whole = drive(*make(scheduler), fails(2, 9))
    for until in (1, 4, 6, 8, 11, 16, 19):
        cut = [Trial.model_validate_json(trial.model_dump_json()) for trial in whole[:until]]
        sampler, plan = make(scheduler)
        assert drive(sampler, plan, fails(2, 9), cut) == whole


def test_higher_is_better() -> None:
    trials = drive(*make(higher_is_better=True))
    ranked = sorted(trials[:4], key=lambda trial: trial.latest or 0.0)
    assert trials[4 + ranked[0].number].parent == ranked[-1].number


@pytest.mark.parametrize(
    ("interval", "ends"),
    [
        (50.0, [50, 100, 150, 200, 240]),
        (75.0, [75, 150, 240]),
        (24.0, [24 * count for count in range(1, 11)]),
        (240.0, [240]),
        (500.0, [240]),
        (0.1 * 240, [24 * count for count in range(1, 11)]),
        (80.0 + 1e-12, [80, 160, 240]),
    ],
)
def test_generations_end_with_the_training(interval: float, ends: list[float]) -> None:
    plan = make_plan(SPACE, scheduler="pbt", interval_kimg=interval)
    assert generation_count(plan) == len(ends)
    assert [generation_end(plan, number) for number in range(len(ends))] == pytest.approx(ends)
    assert generation_end(plan, len(ends) - 1) == 240


def test_the_runs_of_a_population(tmp_path: Path) -> None:
    sampler, plan = make()
    trials = drive(sampler, plan)
    config = load_config(plan.source, ["training.kimg=240", "data.url=/data/cifar"])
    record = SearchRecord(name="members", plan=plan, limits=SearchLimits(trials=MEMBERS), trials=trials)
    search = SearchSpec(record, config, Space.parse(SPACE), str(tmp_path), True)
    replaced = next(trial for trial in trials[4:] if trial.parent is not None and trial.parent % 4 != trial.number % 4)
    for trial in (trials[0], trials[5], replaced, trials[-1]):
        job = search.trial_spec(trial)
        assert job.name == f"{trial.number:04d}"
        assert job.run.url == f"{tmp_path}/members/trials/{job.name}"
        assert job.config.training.kimg == generation_end(plan, trial.generation)
        assert job.config.seed == trial.seed
        assert job.config.optimizer.generator.lr == trial.draw[G]
        assert job.config.objective.gp_weight == trial.draw[WEIGHT]  # type: ignore[attr-defined]
        wanted = None if trial.parent is None else f"{tmp_path}/members/trials/{trial.parent:04d}"
        assert job.continue_from == wanted
    assert search.trial_spec(trials[-1]).config.training.kimg == 240


def test_other_searches_train_each_trial_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    plan = make_plan(SPACE)
    config = load_config(plan.source, ["training.kimg=240", "data.url=/data/cifar"])
    record = SearchRecord(name="rates", plan=plan, limits=SearchLimits())
    search = SearchSpec(record, config, Space.parse(SPACE), str(tmp_path), False)
    job = search.trial_spec(begin(Draw(Space.parse(SPACE).sample(0, 3), seed_offset=2), 3, Space.parse(SPACE)))
    assert (job.config.training.kimg, job.continue_from, job.name) == (240, None, "0003")
    assert job.config.seed == 19
