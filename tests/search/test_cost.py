"""What a search is expected to cost."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from command_line import Cli
from distgan.search import cost as module
from distgan.search.cost import Pace, SearchCost, asha_kimg, estimate_cost
from distgan.search.plan import SearchLimits, SearchOptions, SearchPlan
from distgan.search.planning import plan_search
from distgan.search.ray.schedulers import PastTrial, build_scheduler
from runs import TINY, pack_bricks
from search_records import make_plan

pytestmark = pytest.mark.timeout(60)

PACE = Pace("cpu", 2, kimg_s=2.0, evaluation_s=30.0)


def trained(plan: SearchPlan, trials: int, seed: int) -> float:
    """Kimg of trials of random values, one after another, under Tune's own ASHA."""
    scheduler, rng, total = build_scheduler(plan), Random(seed), 0.0
    for number in range(trials):
        trial, value = PastTrial(str(number), {"number": number}), rng.random()
        scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        kimg = 0.0
        while kimg < plan.kimg:
            kimg += 20
            result = {"kimg": kimg, "score": value, "exempt": False}
            if scheduler.on_trial_result(None, trial, result) == "STOP":  # type: ignore[arg-type]
                break
        total += kimg
    return total


@pytest.mark.parametrize(("trials", "factor"), [(1, 3.0), (10, 4.0), (60, 3.0)])
def test_asha_is_expected_to_train_what_it_does(trials: int, factor: float) -> None:
    plan = make_plan(reduction_factor=factor)
    mean = sum(trained(plan, trials, seed) for seed in range(100)) / 100
    assert asha_kimg(plan, trials) == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize(
    ("asked", "limits", "trials", "most"),
    [
        ({}, {"trials": 4}, 4, 40.0),
        ({}, {"trials": 4, "seeds": 3, "top": 2}, 8, 80.0),
        ({}, {"trials": 4, "budget_kimg": 30.0}, 4, 30.0),
        ({"scheduler": "none"}, {"trials": 4}, 4, 40.0),
        ({"scheduler": "pbt", "interval_kimg": 2.5}, {"trials": 4}, 16, 40.0),
        ({"sampler": "grid", "grid_points": 3}, {}, 3, 30.0),
    ],
)
def test_a_search_of_so_many_trials(
    asked: dict[str, object],
    limits: dict[str, int],
    trials: int,
    most: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "measure_pace", lambda config: PACE)
    found = cost_of(tmp_path, limits, **asked)
    assert (found.trials, found.most_kimg) == (trials, most)
    assert (found.likely_kimg is not None) == ("scheduler" not in asked)
    assert found.likely_kimg is None or 0 < found.likely_kimg <= most
    assert found.seconds(10.0) == 10 * 2.0 + 5 * 30.0


def cost_of(folder: Path, limits: dict[str, int], **asked: object) -> SearchCost:
    data = pack_bricks(folder / "data", samples=100)
    overrides = [*TINY, f"data.url={data}", "training.kimg=10", "evaluation.every_kimg=2"]
    space = ["optimizer.generator.lr=loguniform(1e-5, 1e-3)"]
    options = SearchOptions(
        "quickstart", "search", str(folder / "runs"), overrides, space, limits=SearchLimits(**limits), **asked
    )
    return estimate_cost(plan_search(options, dry_run=True))


def test_a_dry_run_measures_and_writes_nothing(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEASURED_S", 0.0)
    data = pack_bricks(tmp_path / "data", samples=100)
    found = cli(
        "tune", "quickstart", *TINY, f"data.url={data}", "training.kimg=10", "--storage", str(tmp_path / "runs"),
        "--dry-run",
    )  # fmt: skip
    assert found.code == 0, found
    assert [line.split()[0] for line in found.out.splitlines()[1:]] == [
        "search", "trials", "kimg", "step", "evaluation", "time",
    ]  # fmt: skip
    assert "one trial at a time" in found.out
    assert not (tmp_path / "runs").exists()
