"""The same job in one process and under torchrun, through the command line, without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distgan.training.starting_point import find_checkpoint
from processes import TINY, finish, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

# Rank 1 is given another word in the place of OTHER than rank 0.
AS_RANKS = """
import os, sys
from distgan.cli.main import main
ranks = sys.argv.pop(1).split(",")
sys.argv = [ranks[int(os.environ["RANK"])] if word == "OTHER" else word for word in sys.argv]
main()
"""


def test_one_process_and_torchrun_train_the_same(tmp_path: Path) -> None:
    render = ["data", "render", "bricks", "--out", "bricks", "--samples", "256", "--size", "16"]
    finish(start("-m", "distgan", *render, cwd=tmp_path))
    keys = [*TINY, "training.precision=float64", "training.kimg=0.5"]
    command = ["-m", "distgan", "train", "quickstart", "data.url=bricks", *keys, "--no-ray", "--name"]
    for name, prefix in {"alone": [], "pair": LAUNCHER}.items():
        process = start(*prefix, *command, name, cwd=tmp_path)
        output = finish(process)
        assert process.returncode == 0, output
        assert "image budget reached" in output, output
    runs = {name: tmp_path / "runs" / name for name in ("alone", "pair")}
    assert json.loads((runs["pair"] / "summary.json").read_text())["workers"] == 2
    alone, pair = (find_checkpoint(f"{run}/checkpoints/step-000000016").tensors["ema"] for run in runs.values())
    for key, value in alone.items():
        torch.testing.assert_close(pair[key], value, rtol=1e-6, atol=1e-9)


def test_a_mistake_is_told_once_and_that_of_one_rank_too(tmp_path: Path) -> None:
    script = tmp_path / "as_ranks.py"
    script.write_text(AS_RANKS)
    render = ["data", "render", "bricks", "--out", "bricks", "--samples", "256", "--size", "16"]
    finish(start("-m", "distgan", *render, cwd=tmp_path))
    train = ["train", "quickstart", *TINY, "training.kimg=0.1", "--no-ray", "--name", "pair"]
    finish(start("-m", "distgan", *train, "data.url=bricks", cwd=tmp_path))
    for ranks, arguments, message in (
        ("-", [*train], "data.url is not set"),
        ("data.url=bricks,data.url=gone", [*train, "OTHER"], "gone"),
        ("runs,elsewhere", [*train, "data.url=bricks", "--storage", "OTHER"], "worker 1 cannot read checkpoint"),
    ):
        process = start(*LAUNCHER, str(script), ranks, *arguments, cwd=tmp_path)
        output = finish(process)
        assert process.returncode != 0, output
        told = [line for line in output.splitlines() if "distgan: error: " in line]
        assert len(told) == 1, output
        assert message in told[0]
