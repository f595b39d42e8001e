"""Asynchronous evaluations whose process is killed: measured again, with the evaluations of an undisturbed run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.launch.async_evaluator import RESTARTS, Answer, TaskEvaluator
from distgan.training.events import EvaluationResult, Notice, Summary
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from gloo import run_until_death
from runs import ALONE, Recorder, assert_same_bits, kill_this_process, newest, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

# Evaluations at steps 3 and 6, and at the end. All but the last two of the checkpoints are deleted.
STEPS = 7
KEYS = [
    "evaluation.every_kimg=0.048",
    "evaluation.asynchronous=true",
    "checkpoint.every_kimg=0.016",
    "checkpoint.keep_last=1",
]

# Says that it has begun; when its input ends, prints a number that the state of a checkpoint determines.
MEASURE = """
import hashlib, pathlib, sys
state = pathlib.Path(sys.argv[1], "state.pt").read_bytes()
print(flush=True)
sys.stdin.read()
print(int(hashlib.sha256(state).hexdigest()[:8], 16))
"""


class LostError(Exception):
    pass


class Measurer:
    """Measures in processes, of which the first `kills` of each checkpoint are killed."""

    def __init__(self, storage: Path, kills: int = 0, *, kills_run: bool = False) -> None:
        self.storage, self.kills, self.kills_run = storage, kills, kills_run
        self.begun: list[str] = []

    def __call__(self, checkpoint: str) -> Answer:
        command = [sys.executable, "-c", MEASURE, str(self.storage / "run" / "checkpoints" / checkpoint)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            if self.kills_run:
                kill_this_process()
            self.begun.append(checkpoint)
            if self.begun.count(checkpoint) <= self.kills:
                process.send_signal(signal.SIGKILL)
                process.wait()
            process.stdin.close()
            answer = process.stdout.read()
        if process.returncode:
            raise LostError(f"signal {-process.returncode}")
        return {"scores": {"distance": float(answer), "more": {}, "diversity": int(answer) / 2**32, "seconds": {}}}


def lost(error: Exception) -> str | None:
    return f"its process died ({error})" if isinstance(error, LostError) else None


def run(
    data: str, storage: Path, measurer: Measurer, distributed: Distributed = ALONE
) -> tuple[Summary, Recorder, list[str]]:
    recorder, lines = Recorder(), list[str]()
    evaluator = TaskEvaluator(distributed, measurer, lost, lines.append)
    spec = RunSpec(tiny_config("quickstart", data, STEPS, *KEYS), "run", str(storage))
    return train(spec, distributed, recorder, evaluator), recorder, lines


def test_a_killed_evaluation_is_measured_again_and_counts_at_the_same_step(data: str, tmp_path: Path) -> None:
    results: list[Any] = []
    for name, kills in (("calm", 0), ("disturbed", RESTARTS)):
        measurer = Measurer(tmp_path / name, kills)
        summary, recorder, lines = run(data, tmp_path / name, measurer)
        events = recorder.of(EvaluationResult)
        results.append((newest(str(tmp_path / name)), [(event.step, event.reported_step) for event in events]))
        assert summary.reason == "budget"
        begun = ["step-000000003", "step-000000006"]
        assert measurer.begun == [name for name in begun for _ in range(kills + 1)]
        assert lines == [
            f"the evaluation of checkpoint {name} was lost: its process died (signal 9); restart {restart} of 3"
            for name in begun
            for restart in range(1, kills + 1)
        ]
    assert results[0][1] == results[1][1] == [(3, 6), (6, 7), (7, 7)]
    assert_same_bits(results[0][0], results[1][0])


def test_one_that_is_lost_too_often_is_left_to_the_workers(data: str, tmp_path: Path) -> None:
    _, recorder, lines = run(data, tmp_path, Measurer(tmp_path, 99))
    assert [event.step for event in recorder.of(EvaluationResult)] == [3, 6, 7]
    assert len(lines) == 2 * (RESTARTS + 1)
    assert lines[RESTARTS].endswith("was lost: its process died (signal 9); the workers evaluate it")


def killed(distributed: Distributed, data: str, storage: Path) -> None:
    run(data, storage, Measurer(storage, kills_run=True), distributed)


def test_a_run_killed_meanwhile_has_it_measured_after_its_resume(data: str, tmp_path: Path) -> None:
    run(data, tmp_path / "calm", Measurer(tmp_path / "calm"))
    assert run_until_death(killed, 1, data, tmp_path / "killed")[0].exit_code == -9
    assert newest(str(tmp_path / "killed"))[1]["pending"]["step"] == 3
    measurer = Measurer(tmp_path / "killed")
    run(data, tmp_path / "killed", measurer)
    assert measurer.begun == ["step-000000003", "step-000000006"]
    assert_same_bits(newest(str(tmp_path / "killed")), newest(str(tmp_path / "calm")))


def test_an_error_is_no_loss(data: str, tmp_path: Path) -> None:
    class Failing(Measurer):
        def __call__(self, checkpoint: str) -> Answer:
            raise ZeroDivisionError("by zero")

    with pytest.raises(UserError, match=r"checkpoint step-000000003 failed: ZeroDivisionError: by zero .*=false"):
        run(data, tmp_path, Failing(tmp_path))


def test_a_damaged_checkpoint_has_no_evaluation_and_that_is_told(data: str, tmp_path: Path) -> None:
    class Gone(Measurer):
        def __call__(self, checkpoint: str) -> Answer:
            (self.storage / "run" / "checkpoints" / checkpoint / "state.pt").write_bytes(b"half")
            return {}

    _, recorder, _ = run(data, tmp_path, Gone(tmp_path))
    assert [event.step for event in recorder.of(EvaluationResult)] == [7]
    assert [notice.text for notice in recorder.of(Notice)] == [
        f"step-00000000{step} is gone or damaged: the run has no evaluation of it, where it was pending"
        for step in (3, 6)
    ]
