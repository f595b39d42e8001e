"""A search as a study of Optuna."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from command_line import Cli, one_line
from distgan.search.optuna_study import export_study
from distgan.search.record import SearchRecord
from distgan.storage.storage import Storage
from search_records import finished, make_plan, make_record, make_trial, population, with_repetitions

pytestmark = pytest.mark.timeout(60)


def exported(record: SearchRecord, folder: Path) -> optuna.Study:
    record.save(Storage.open(str(folder / "rates")))
    storage = f"sqlite:///{folder}/search.db"
    assert export_study(str(folder / "rates"), storage) == (record.name, len(record.trials))
    return optuna.load_study(study_name=record.name, storage=storage)


def test_a_study_has_what_the_record_has(tmp_path: Path) -> None:
    record = with_repetitions(finished(30), best=[3], seeds=2)
    study = exported(record, tmp_path)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == [record.plan.metric]
    states = {"budget": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    for trial, found in zip(record.trials, study.trials, strict=True):
        assert found.state == states.get(trial.state, TrialState.FAIL)
        curve = {round(1000 * kimg): value for kimg, value in trial.curve}
        assert found.intermediate_values == curve
        assert found.value == (min(curve.values()) if found.state == TrialState.COMPLETE else None)
        assert found.params["optimizer.generator.lr"] == trial.overrides["optimizer.generator.lr"]
        assert found.params["objective.critic_steps"] == trial.overrides["objective.critic_steps"]
        assert ("objective.gp_weight" in found.params) == ("objective.gp_weight" in trial.overrides)
        assert found.user_attrs["run"] == trial.name
    assert study.trials[-1].user_attrs["repeats"] == 3
    assert study.trials[12].user_attrs["error"] == "RuntimeError: out of memory"
    rates = study.trials[0].distributions["optimizer.generator.lr"]
    assert rates == optuna.distributions.FloatDistribution(2e-5, 2e-3, log=True)
    assert optuna.importance.get_param_importances(study)


def test_a_search_that_goes_on(tmp_path: Path) -> None:
    plan = make_plan({"objective.critic_steps": "choice(1, 3)", "evaluation.metrics": "choice([], [kid], null)"})
    begun = make_trial(plan, 0, state="begun", curve=[(0.5, 3.0), (0.75, 2.0)])
    study = exported(make_record([begun, make_trial(plan, 1)], plan), tmp_path)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    assert study.trials[0].intermediate_values == {500: 3.0, 750: 2.0}
    assert study.trials[0].params["evaluation.metrics"] in ("[]", "[kid]", None)


def test_a_population(tmp_path: Path) -> None:
    record = population(4, 3)
    study = exported(record, tmp_path)
    assert [trial.user_attrs.get("parent") for trial in study.trials] == [trial.parent for trial in record.trials]


def test_the_command(cli: Cli, tmp_path: Path) -> None:
    search, storage = str(tmp_path / "rates"), f"sqlite:///{tmp_path}/search.db"
    finished(3).save(Storage.open(search))
    out = cli("tune", "--results", search, "--to-optuna", storage).out
    assert out == f"{storage}: study rates, 3 trials; see it with `optuna-dashboard {storage}`\n"
    assert "has a study 'rates'" in one_line(cli("tune", "--results", search, "--to-optuna", storage))
    for bad in ("search.db", f"sqlite:///{tmp_path}/no/search.db", "postgresql+none://me:hunter2@host/db"):
        line = one_line(cli("tune", "--results", search, "--to-optuna", bad))
        assert "sqlite:///search.db" in line
        assert "hunter2" not in line
    (tmp_path / "text.db").write_text("no database")
    assert "sqlite:///search.db" in one_line(
        cli("tune", "--results", search, "--to-optuna", f"sqlite:///{tmp_path}/text.db")
    )
    assert "no search there" in one_line(cli("tune", "--results", str(tmp_path), "--to-optuna", storage))
    assert "needs --results" in one_line(cli("tune", "quickstart", "--to-optuna", storage))
