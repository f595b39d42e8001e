"""Runs on Ray whose workers fail: what is retried, what is not, and what is said of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from distgan.storage.storage import Storage
from distgan.training.manifest import MANIFEST_NAME
from processes import TINY, finish, our_processes, start, wait_for
from runs import pack_bricks

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

# Its forward fails at the tenth batch.
NETWORK = """
from torch import nn

class Network(nn.Module):
    def __init__(self, image_size: int, channels: int):
        super().__init__()
        self.layer, self.calls = nn.Linear(channels * image_size ** 2, 1), 0

    def forward(self, images):
        self.calls += self.training and len(images) > 2
        return self.layer(images.flatten(1)) / (self.calls < 20 or 1 // 0)
"""


def train(tmp_path: Path, name: str, *keys: str) -> subprocess.Popen[str]:
    data = tmp_path / "data"
    url = Storage.open(str(data)).url if data.exists() else pack_bricks(data)
    scale = ["--workers", "2", "--storage", str(tmp_path / "runs"), "--name", name]
    command = ["train", "quickstart", f"data.url={url}", *TINY, "training.kimg=4", *scale, *keys]
    return start("-m", "distgan", *command, cwd=tmp_path)


def workers() -> list[psutil.Process]:
    found = [psutil.Process(pid) for pid in our_processes()]
    return [process for process in found if any("RayTrainWorker" in word for word in process.cmdline())]


def test_a_killed_worker_without_restarts_ends_the_run_in_one_line(tmp_path: Path) -> None:
    before = our_processes()
    process = train(tmp_path, "killed", "scale.max_failures=0")
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if "2 workers on cpu" in line:
            os.kill(workers()[0].pid, signal.SIGKILL)
    process.wait(30)
    output = "".join(told)
    assert process.returncode == 2, output
    error = (
        r"distgan: error: .*/killed: worker [01] on 127\.0\.0\.1: its process died; not restarted .* from \S+ kimg\n"
    )
    assert re.fullmatch(error, told[-1]), output
    assert "Traceback" not in output
    assert "raylet" not in output
    summary = json.loads((tmp_path / "runs" / "killed" / "summary.json").read_text())
    assert (summary["reason"], f"distgan: error: {summary['error']}\n") == ("error", told[-1])
    assert len(summary["attempts"]) == 1
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)


def test_an_error_of_a_users_network_is_not_retried(tmp_path: Path) -> None:
    before = our_processes()
    (tmp_path / "failing.py").write_text(NETWORK)
    process = train(tmp_path, "failing", "discriminator={network: failing:Network}")
    output = finish(process)
    assert process.returncode == 1, output
    assert re.search(
        r"WorkerError: worker [01] on 127\.0\.0\.1 raised ZeroDivisionError: .* \(failing\.py, line", output
    )
    assert output.count("2 workers on cpu") == 1, output
    assert "restart 1" not in output
    assert output.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero"), output
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)


def test_a_terminated_worker_has_the_state_saved_and_a_frozen_one_is_replaced(tmp_path: Path) -> None:
    before = our_processes()
    keys = ["training.kimg=10000", "evaluation.every_kimg=10000", "checkpoint.every_kimg=null"]
    run = tmp_path / "runs" / "frozen"
    process = train(tmp_path, "frozen", *keys, "scale.hang_minutes=0.4")
    assert process.stdout is not None
    told = []

    def until(pattern: str) -> re.Match[str]:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line)
            found = re.search(pattern, line)
            if found is not None:
                return found
        raise AssertionError("".join(told))

    try:
        until(" images/s")
        os.kill(workers()[0].pid, signal.SIGTERM)
        saved = until(r"worker [01] on 127\.0\.0\.1 received SIGTERM; the state of step ([\d,]+) is saved")
        step = int(saved[1].replace(",", ""))
        wait_for((run / "checkpoints" / f"step-{step:09}" / MANIFEST_NAME).exists, 20)
        frozen = workers()[0]
        os.kill(frozen.pid, signal.SIGSTOP)
        reason = r"worker [01] on 127\.0\.0\.1: (?:no answer since \d\d:\d\d:\d\d|it stopped answering)"
        lost = until(rf"({reason}); restart 1 of 3 without a new checkpoint, from \S+ kimg")
        until("2 workers on cpu")
        assert not frozen.is_running()
        until(" images/s")
        process.send_signal(signal.SIGINT)
        told.append(finish(process, 60))
    finally:
        process.kill()
    assert process.returncode == 130, told
    summary = json.loads((run / "summary.json").read_text())
    assert [attempt["failure"] for attempt in summary["attempts"]] == [lost[1], None]
    assert summary["attempts"][1]["kimg"] == pytest.approx(0.032 * step)
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)
