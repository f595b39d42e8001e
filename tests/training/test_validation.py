"""Asynchronous evaluations: their scores count at a fixed step, whenever they arrive and whatever is killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Scores
from distgan.inference.evaluation import score_checkpoint
from distgan.storage.storage import Storage
from distgan.tracking.run_folder import RunReporter
from distgan.training.checkpoints import CheckpointStore
from distgan.training.events import EvaluationResult
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from gloo import run_workers
from runs import ALONE, assert_same_bits, checkpoints, newest, run, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

# Evaluations at steps 0, 3, 6, 9 and at the end, 10; checkpoints in between, of which all but the last are deleted.
STEPS = 10
KEYS = [
    "evaluation.every_kimg=0.048",
    "evaluation.at_start=true",
    "evaluation.asynchronous=true",
    "checkpoint.every_kimg=0.016",
    "checkpoint.keep_last=1",
]


class LateEvaluator:
    """Evaluates a checkpoint when its result is requested, as late as possible; it must still exist then.

    Distances can be scripted instead, by checkpoint.
    """

    def __init__(self, config: Config, storage: str, distributed: Distributed = ALONE, **scripted: float) -> None:
        self.config, self.distributed, self.scripted = config, distributed, scripted
        self.store = CheckpointStore(Storage.open(storage).child("run"))
        self.started: list[str] = []

    def start(self, checkpoint: str) -> None:
        assert self.store.load(checkpoint) is not None
        self.started.append(checkpoint)

    def result(self, checkpoint: str) -> Scores:
        assert checkpoint == self.started[-1]
        if self.scripted:
            return Scores(self.scripted[checkpoint], {}, 1.0, {})
        found = self.store.load(checkpoint)
        assert found is not None, "the checkpoint under evaluation was deleted"
        return score_checkpoint(self.config, found, self.distributed)


def evaluated(progress: dict[str, Any]) -> list[int]:
    return [evaluation["step"] for evaluation in progress["evaluations"]]


def whole_run(
    distributed: Distributed, data: str, storage: str, keys: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    config = tiny_config("quickstart", data, STEPS, *keys)
    evaluator = LateEvaluator(config, storage, distributed) if config.evaluation.asynchronous else None
    run(config, storage, distributed=distributed, async_evaluator=evaluator)
    return distributed.broadcast(newest(storage) if distributed.rank == 0 else ({}, {}))


def test_the_scores_are_those_of_synchronous_evaluations(data: str, tmp_path: Path) -> None:
    later = whole_run(ALONE, data, str(tmp_path / "later"), KEYS)
    now = whole_run(ALONE, data, str(tmp_path / "now"), [*KEYS, "evaluation.asynchronous=false"])
    assert evaluated(later[1]) == [0, 3, 6, 9, 10]
    assert_same_bits(later, now)


@pytest.mark.slow
def test_with_two_workers_too(data: str, tmp_path: Path) -> None:
    later, _ = run_workers(whole_run, 2, data, str(tmp_path / "later"), KEYS)
    now, _ = run_workers(whole_run, 2, data, str(tmp_path / "now"), [*KEYS, "evaluation.asynchronous=false"])
    assert evaluated(later[1]) == [0, 3, 6, 9, 10]
    assert_same_bits(later, now)


def test_scores_count_from_the_next_evaluation_on(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, STEPS, *KEYS)
    _, recorder = run(config, str(tmp_path), async_evaluator=LateEvaluator(config, str(tmp_path)))
    events = recorder.of(EvaluationResult)
    assert [(event.step, event.reported_step) for event in events] == [(0, 3), (3, 6), (6, 9), (9, 10), (10, 10)]
    kept = checkpoints(str(tmp_path)).names()
    best = min(events[1:], key=lambda event: event.value)
    assert set(kept) == {f"step-{step:09d}" for step in (best.step, STEPS)}


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_stopped_at_any_step_it_ends_as_if_it_had_not_been(data: str, tmp_path: Path, killed: bool) -> None:
    """The newest checkpoint of a killed session is unfinished; the next session resumes before it."""
    wanted = whole_run(ALONE, data, str(tmp_path / "whole"), KEYS)
    storage = str(tmp_path / "stopped")
    config = tiny_config("quickstart", data, STEPS, *KEYS)
    for stop_at in (1, 3, 4, 6, 7):
        run(config, storage, stop_at=stop_at, async_evaluator=LateEvaluator(config, storage))
        last = checkpoints(storage).names()[-1]
        if killed and stop_at % 2 and len(checkpoints(storage).names()) > 1:
            (tmp_path / "stopped" / "run" / "checkpoints" / last / "state.pt").write_bytes(b"half")
    run(config, storage, async_evaluator=LateEvaluator(config, storage))
    assert_same_bits(newest(storage), wanted)


def test_metrics_have_each_evaluation_once_however_often_it_is_reported(data: str, tmp_path: Path) -> None:
    """Killed between scores and the checkpoint that holds them, a run gets them again."""
    config = tiny_config("quickstart", data, STEPS, *KEYS)
    job = RunSpec(config, "run", str(tmp_path))
    stopped = iter([False] * 6 + [True] * 9)
    for stop in (lambda: next(stopped), lambda: False):
        reporter = RunReporter(job.run, lambda _: None, stop)
        train(job, ALONE, reporter, LateEvaluator(config, str(tmp_path)))
        reporter.close()
        newest_folder = tmp_path / "run" / "checkpoints" / checkpoints(str(tmp_path)).names()[-1]
        if "000000007" in newest_folder.name:
            shutil.rmtree(newest_folder)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["event"] == "evaluation"] == [0, 3, 6, 9, 10]


def test_early_stopping_is_one_evaluation_behind(data: str, tmp_path: Path) -> None:
    """No evaluation starts that has no effect."""
    config = tiny_config("quickstart", data, STEPS, *KEYS, "evaluation.target=5")
    scripted = {"step-000000000": 1.0, "step-000000003": 9.0, "step-000000006": 4.0}
    evaluator = LateEvaluator(config, str(tmp_path), **scripted)
    summary, _ = run(config, str(tmp_path), async_evaluator=evaluator)
    assert (summary.reason, summary.steps, summary.best) == ("target", 9, 4.0)
    assert summary.best_checkpoint == "step-000000006"
    assert summary.last_checkpoint == "step-000000009"
    assert evaluator.started == list(scripted)
    again, recorder = run(config, str(tmp_path), async_evaluator=LateEvaluator(config, str(tmp_path)))
    assert (again.reason, again.steps) == ("target", 9)
    assert not recorder.of(EvaluationResult)


@pytest.mark.parametrize("gone", [False, True])
def test_a_synchronous_session_finishes_a_pending_evaluation(data: str, tmp_path: Path, gone: bool) -> None:
    """If its checkpoint still exists."""
    keys = [*KEYS, "checkpoint.keep_last=9"]
    config = tiny_config("quickstart", data, STEPS, *keys)
    run(config, str(tmp_path), stop_at=4, async_evaluator=LateEvaluator(config, str(tmp_path)))
    assert newest(str(tmp_path))[1]["pending"]["step"] == 3
    if gone:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000000003")
    run(tiny_config("quickstart", data, STEPS, *keys, "evaluation.asynchronous=false"), str(tmp_path))
    progress = newest(str(tmp_path))[1]
    assert evaluated(progress) == ([0, 6, 9, 10] if gone else [0, 3, 6, 9, 10])
    assert progress["pending"] is None


def test_an_evaluation_that_fails_ends_the_run(data: str, tmp_path: Path) -> None:
    class Failing(LateEvaluator):
        def result(self, checkpoint: str) -> Scores:
            raise UserError(f"{checkpoint} cannot be evaluated")

    config = tiny_config("quickstart", data, STEPS, *KEYS)
    with pytest.raises(UserError, match="step-000000000 cannot be evaluated"):
        run(config, str(tmp_path), async_evaluator=Failing(config, str(tmp_path)))
    assert newest(str(tmp_path))[1]["pending"]["step"] == 0
