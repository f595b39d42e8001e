"""The plan of a search and the runs of its trials, from the options of `distgan tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distgan.config.load import load_config, preset_names
from distgan.errors import UserError
from distgan.evaluation.extractors.published import INCEPTION_WEIGHTS
from distgan.search.plan import SearchLimits, SearchOptions, SearchPlan
from distgan.search.planning import SearchSpec, plan_search
from distgan.search.record import SearchRecord, read_record
from distgan.search.space import Space
from distgan.search.space_files import default_entries
from driven import SEED, drive
from runs import pack_bricks

pytestmark = pytest.mark.timeout(120)

G = "optimizer.generator.lr"


@pytest.fixture(scope="module")
def bricks(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pack_bricks(tmp_path_factory.mktemp("bricks"), samples=80)


@pytest.fixture(name="plan")
def planner(bricks: str, tmp_path: Path) -> Any:
    """Plans a search of quickstart on bricks."""

    def plan(*overrides: str, **options: Any) -> SearchSpec:
        shared = [f"data.url={bricks}", "image_size=16", "generator.widths=[16, 8]", *overrides]
        given = {"source": "quickstart", "name": "rates", "storage": str(tmp_path / "runs"), **options}
        return plan_search(SearchOptions(overrides=shared, **given))

    return plan


@pytest.mark.parametrize(
    ("scheduler", "searched"),
    [("pbt", [G, "optimizer.discriminator.lr"]), ("pb2", [G]), ("median", list(default_entries("quickstart")))],
)
def test_of_a_presets_own_space_the_scheduler_searches_what_it_can(
    plan: Any, scheduler: str, searched: list[str]
) -> None:
    job = plan("training.kimg=270", "evaluation.every_kimg=1", scheduler=scheduler)
    assert job.space.keys == searched
    assert bool(job.notes) == (scheduler != "median")
    assert all("objective.label_noise" in note for note in job.notes)
    # What a user asks for is not left out.
    if scheduler != "median":
        with pytest.raises(UserError, match=r"label_noise.*cannot change during training"):
            plan(scheduler=scheduler, space=["objective.label_noise=uniform(0, 0.1)", f"{G}=loguniform(1e-5, 1e-3)"])


def test_what_a_search_is_by_default(plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = plan("training.kimg=640", "evaluation.every_kimg=1")
    own = job.record.plan
    assert (own.scheduler, own.sampler, own.metric, own.higher_is_better) == ("asha", "random", "fd_lite0_2k", False)
    assert (own.kimg, own.grace_kimg, own.interval_kimg) == (640, pytest.approx(10), 64)
    assert own.space == Space.parse(default_entries("quickstart")).as_dict()
    assert not job.resumes
    assert job.config.health.stop
    assert not job.config.evaluation.at_start
    assert read_record(job.search) is None
    # No rung is before the first evaluation.
    assert plan("training.kimg=270", "evaluation.every_kimg=100").record.plan.grace_kimg == 100
    assert plan("training.kimg=50", "evaluation.every_kimg=100").record.plan.grace_kimg == 50
    monkeypatch.setenv(INCEPTION_WEIGHTS.variable, str(tmp_path / "weights.pth"))
    assert plan().record.plan.metric == "fid2k_full"
    assert plan(metric="fd_lite0").record.plan.metric == "fd_lite0_2k"
    assert plan(metric="recall").config.evaluation.monitor == "recall"
    assert plan(metric="recall").record.plan.higher_is_better


def test_a_target_and_a_population_change_how_runs_end(plan: Any) -> None:
    job = plan("evaluation.patience=3", limits=SearchLimits(target=12.5))
    assert (job.config.evaluation.target, job.config.evaluation.patience) == (12.5, 3)
    population = plan("evaluation.patience=3", space=[f"{G}=uniform(1e-4, 1e-3)"], scheduler="pbt")
    assert population.config.evaluation.patience is None


def test_a_budget_below_the_first_rung_is_allowed(plan: Any) -> None:
    job = plan(limits=SearchLimits(budget_kimg=0.5))
    assert job.record.limits.budget_kimg == 0.5 < job.record.plan.grace_kimg


def test_what_may_be_another_in_the_next_session(plan: Any) -> None:
    first = plan()
    first.record.trials = drive(first.sampler(), first.space, lambda trial: (1.0, "budget"))
    first.record.save(first.search)
    longer = plan(limits=SearchLimits(trials=20, seeds=2, top=1, target=3.0, budget_hours=1))
    assert longer.resumes
    assert longer.record.trials == first.record.trials
    assert longer.record.limits.trials == 20
    again = plan("scale.max_failures=9", "checkpoint.keep_last=7")
    assert again.resumes
    with pytest.raises(UserError, match=r"started with other settings: reduction_factor was 4 and is 3; set them back"):
        plan(reduction_factor=3.0)
    with pytest.raises(UserError, match="metric was fd_lite0_2k and is recall_lite0_2k; and"):
        plan(metric="recall", scheduler="median", seed=4)


def test_all_trials_of_a_search_have_the_same_budget(plan: Any) -> None:
    options = {"grace_kimg": 5.0, "interval_kimg": 5.0}
    job = plan("training.kimg=20", **options)
    job.record.save(job.search)
    with pytest.raises(UserError, match=r"config\.training\.kimg was 20 and is 40"):
        plan("training.kimg=40", **options)


def test_a_grid_has_as_many_trials_as_points(plan: Any) -> None:
    job = plan(sampler="grid", grid_points=3, space=[f"{G}=loguniform(1e-5, 1e-3)"])
    assert job.record.limits.trials == 3


def test_a_population_keeps_its_size(plan: Any) -> None:
    entries = [f"{G}=uniform(1e-4, 1e-3)"]
    first = plan(space=entries, scheduler="pbt", limits=SearchLimits(trials=4))
    first.record.save(first.search)
    assert plan(space=entries, scheduler="pbt", limits=SearchLimits(trials=4, budget_hours=1)).resumes
    with pytest.raises(UserError, match="this population has 4 members; give --trials 4 to resume it, or start"):
        plan(space=entries, scheduler="pbt", limits=SearchLimits(trials=5))


def test_other_objectives_and_optimizers_in_a_space(plan: Any) -> None:
    entries = [
        "objective.name=choice(bce, hinge)",
        "objective.label_noise=uniform(0.01, 0.2) if objective.name == bce",
        "optimizer.generator.name=choice(adam, rmsprop)",
        "optimizer.generator.beta1=uniform(0, 0.9) if optimizer.generator.name == adam",
    ]
    job = plan(space=entries, seed=1, limits=SearchLimits(trials=12))
    seen = set()
    for trial in drive(job.sampler(), job.space, lambda trial: (1.0, "budget")):
        config = job.trial_spec(trial).config
        objective, optimizer = config.objective, config.optimizer.generator
        seen.add((objective.name, optimizer.name))
        assert hasattr(objective, "label_noise") == (objective.name == "bce")
        if objective.name == "bce":
            assert objective.label_noise == trial.overrides.get("objective.label_noise", 0.0)
        if optimizer.name == "adam":
            assert optimizer.beta1 == trial.overrides["optimizer.generator.beta1"]
    assert len(seen) == 4


@pytest.mark.parametrize("preset", preset_names())
def test_the_own_space_of_a_preset_gives_runs(preset: str, tmp_path: Path) -> None:
    config = load_config(preset, ["data.url=/data"])
    entries = default_entries(preset)
    plan = SearchPlan(
        data_hash="0" * 64,
        source=preset,
        config=config.model_dump(mode="json"),
        space=entries,
        measure="frechet",
        metric="fd_lite0_2k",
        higher_is_better=False,
        sampler="random",
        scheduler="asha",
        grace_kimg=1.0,
        interval_kimg=1.0,
    )
    record = SearchRecord(name="search", plan=plan, limits=SearchLimits(trials=4))
    job = SearchSpec(record, config, Space.parse(entries), str(tmp_path), False)
    trials = drive(job.sampler(), job.space, lambda trial: (1.0, "budget"))
    first = job.trial_spec(trials[0])
    assert first.config == config.model_copy(update={"seed": SEED}), "the first trial is the preset"
    for trial in trials[1:]:
        found = job.trial_spec(trial).config
        tree = found.model_dump(mode="json")
        for key, value in trial.overrides.items():
            section: Any = tree
            for part in key.split("."):
                section = section[part]
            assert section == value
        assert found.seed == trial.seed
