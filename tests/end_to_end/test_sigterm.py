"""SIGTERM while Ray trains: the state is saved, and the same command goes on with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from runs import TINY

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_signal_to_the_whole_group_saves_the_state(data: str, tmp_path: Path) -> None:
    """As schedulers, `timeout` and a closed terminal send one. Ray's own handler of SIGTERM would end the command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distgan", "train", "quickstart", f"data.url={data}", *TINY, "training.kimg=100000",
         "training.log_every=20", "--storage", str(tmp_path), "--name", "run"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        process_group=0,
    )  # fmt: skip
    assert process.stdout is not None
    assert any(" images/s" in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "interrupted, state saved" in said
    assert "the state is saved first" in said
    assert "SIGTERM received" not in said
    run = Storage.open(f"{tmp_path}/run")
    newest = CheckpointStore(run).newest_manifest()
    assert newest is not None
    rows = [json.loads(line) for line in run.read_bytes("metrics.jsonl").splitlines()]
    assert newest.kimg == [row["kimg"] for row in rows if row["event"] == "step"][-1]
