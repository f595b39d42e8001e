"""Why a run stops: budget, plateau, request, time; and its evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distgan.evaluation.evaluator import Evaluator, Scores
from distgan.tracking import formatting
from distgan.training.checkpoints import checkpoint_name
from distgan.training.events import EvaluationResult, RunFinished, StepMetrics
from distgan.training.progress import Progress
from distgan.training.starting_point import find_checkpoint
from runs import checkpoints, run, script_distances, tiny_config

pytestmark = pytest.mark.timeout(120)


def test_a_plateau_stops_the_run_and_is_remembered(data: str, tmp_path: Path) -> None:
    frozen = ["optimizer.generator.lr=1e-12", "generator.norm_momentum=1e-9", "evaluation.every_kimg=0.016"]
    config = tiny_config("quickstart", data, 50, *frozen, "evaluation.patience=2")
    summary, recorder = run(config, str(tmp_path))
    assert (summary.reason, summary.steps) == ("plateau", 3)
    assert [event.without_improvement for event in recorder.of(EvaluationResult)] == [0, 1, 2]
    assert recorder.of(RunFinished)[0].summary == summary

    longer = tiny_config("quickstart", data, 90, *frozen, "evaluation.patience=2")
    again, recorder = run(longer, str(tmp_path))
    assert (again.reason, again.steps) == ("plateau", 3)
    assert not recorder.of(StepMetrics)
    assert formatting.next_command(again) == "the same command with evaluation.patience above 2 (or null)"

    patient = tiny_config("quickstart", data, 50, *frozen, "evaluation.patience=3")
    summary, recorder = run(patient, str(tmp_path))
    assert (summary.reason, summary.steps) == ("plateau", 4)


def test_after_a_plateau_a_smaller_improvement_may_suffice(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Early stopping covers the evaluations of earlier sessions too."""
    script_distances(monkeypatch, 100.0, 98.0, 96.0, 94.0, 94.0, 94.0)
    keys = ["evaluation.every_kimg=0.016", "evaluation.patience=2"]
    summary, _ = run(tiny_config("quickstart", data, 50, *keys, "evaluation.min_improvement=0.1"), str(tmp_path))
    assert (summary.reason, summary.steps, summary.best) == ("plateau", 3, 96.0)
    summary, recorder = run(
        tiny_config("quickstart", data, 50, *keys, "evaluation.min_improvement=0.01"), str(tmp_path)
    )
    assert [event.without_improvement for event in recorder.of(EvaluationResult)] == [0, 1, 2]
    assert (summary.reason, summary.steps) == ("plateau", 6)


def test_a_target_stops_the_run(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_distances(monkeypatch, 1.0, 100.0, 80.0, 70.0)
    keys = ["evaluation.every_kimg=0.016", "evaluation.at_start=true"]
    summary, _ = run(tiny_config("quickstart", data, 50, *keys, "evaluation.target=80"), str(tmp_path))
    assert (summary.reason, summary.steps, summary.best) == ("target", 2, 80.0)
    assert formatting.stop_reason(summary) == "evaluation.target reached"
    assert formatting.next_command(summary) == "the same command with another evaluation.target (or null)"
    summary, recorder = run(tiny_config("quickstart", data, 50, *keys, "evaluation.target=75"), str(tmp_path))
    assert (summary.reason, summary.steps) == ("target", 3)
    assert [event.step for event in recorder.of(EvaluationResult)] == [3]


def test_the_best_by_another_metric_is_one_that_still_exists(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth has the best distance, the first the best kernel distance; the first is deleted."""
    scripted = iter([Scores(5.0 - step, {"kernel": float(step)}, 1.0, {}) for step in range(1, 8)])
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, images: next(scripted))
    keys = ["evaluation.every_kimg=0.016", "checkpoint.keep_last=1", "evaluation.metrics=[kernel]"]
    summary, _ = run(tiny_config("quickstart", data, 4, *keys), str(tmp_path))
    assert summary.best_checkpoint == "step-000000004"
    summary, _ = run(tiny_config("quickstart", data, 7, *keys, "evaluation.monitor=kernel"), str(tmp_path))
    assert (summary.best, summary.best_kimg) == (1.0, 0.016)
    assert summary.best_checkpoint == "step-000000004"
    assert checkpoints(str(tmp_path)).names() == ["step-000000004", "step-000000007"]
    assert find_checkpoint(str(tmp_path / "run")).manifest.name == "step-000000004"


def test_the_advice_names_what_ended_the_run(data: str, tmp_path: Path) -> None:
    keys = ["evaluation.every_kimg=0.016", "evaluation.min_improvement=0.99"]
    summary, _ = run(tiny_config("quickstart", data, 2, *keys), str(tmp_path))
    assert formatting.next_command(summary) == "the same command with training.kimg above 0.032"
    summary, _ = run(tiny_config("quickstart", data, 2, *keys, "evaluation.patience=1"), str(tmp_path))
    assert (summary.reason, formatting.next_command(summary)) == (
        "plateau",
        "the same command with evaluation.patience above 1 (or null) and training.kimg above 0.032",
    )
    summary, _ = run(tiny_config("quickstart", data, 4, *keys), str(tmp_path), stop_at=3)
    assert (summary.reason, formatting.next_command(summary)) == ("interrupted", "the same command")


def test_the_untrained_generator_is_evaluated_once_if_configured(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 2, "evaluation.at_start=true")
    summary, recorder = run(config, str(tmp_path), stop_at=1)
    (event,) = recorder.of(EvaluationResult)
    assert (event.step, summary.untrained) == (0, event.value)
    resumed, recorder = run(config, str(tmp_path))
    assert [event.step for event in recorder.of(EvaluationResult)] == [2]
    assert resumed.untrained == summary.untrained

    summary, recorder = run(tiny_config("quickstart", data, 1), str(tmp_path), "without")
    assert summary.untrained is None
    assert [event.step for event in recorder.of(EvaluationResult)] == [1]


def test_stopping_in_the_last_step_counts_as_done(data: str, tmp_path: Path) -> None:
    summary, recorder = run(tiny_config("quickstart", data, 2), str(tmp_path), stop_at=2)
    assert summary.reason == "budget"
    assert summary.latest == recorder.of(EvaluationResult)[-1].value
    manifest = tmp_path / "run" / "checkpoints" / checkpoint_name(2) / "manifest.json"
    latest = Progress.from_dict(json.loads(manifest.read_text())["progress"]).evaluations[-1]
    assert (latest.distance, latest.images / 1000) == (summary.latest, summary.latest_kimg)


def test_a_session_ends_when_its_time_is_over_and_the_next_resumes(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 3, "training.max_minutes=1e-6")
    for step in (1, 2):
        summary, recorder = run(config, str(tmp_path))
        assert (summary.reason, summary.steps) == ("time", step)
        assert [event.step for event in recorder.of(EvaluationResult)] == [step]
        assert checkpoints(str(tmp_path)).newest_name() == summary.last_checkpoint
    summary, _ = run(config, str(tmp_path))
    assert (summary.reason, summary.steps) == ("budget", 3)
