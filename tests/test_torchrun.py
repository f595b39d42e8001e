"""The same job in one process and under torchrun, through the command line, without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distgan.training.sampling import find_checkpoint
from processes import TINY, finish, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_one_process_and_torchrun_train_the_same(tmp_path: Path) -> None:
    render = ["data", "render", "bricks", "--out", "bricks", "--samples", "256", "--size", "16"]
    finish(start("-m", "distgan", *render, cwd=tmp_path))
    keys = [*TINY, "training.precision=float64", "training.kimg=0.5"]
    command = ["-m", "distgan", "train", "quickstart", "data.url=bricks", *keys, "--no-ray", "--name"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, prefix in {"alone": [], "pair": launcher}.items():
        process = start(*prefix, *command, name, cwd=tmp_path)
        output = finish(process)
        assert process.returncode == 0, output
        assert "image budget used up" in output, output
    runs = {name: tmp_path / "runs" / name for name in ("alone", "pair")}
    assert json.loads((runs["pair"] / "summary.json").read_text())["workers"] == 2
    alone, pair = (find_checkpoint(f"{run}/checkpoints/step-000000016").tensors["ema"] for run in runs.values())
    for key, value in alone.items():
        torch.testing.assert_close(pair[key], value, rtol=1e-6, atol=1e-9)
