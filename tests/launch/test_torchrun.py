"""The same job in one process and under torchrun, through the command line, without Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command_line import Cli
from distgan.training.starting_point import find_checkpoint
from processes import TINY, finish, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

# Rank 1 is given another word in the place of OTHER than rank 0.
AS_RANK = """
import json, os, sys
from distgan.cli.main import main

ranks, words = json.loads(sys.argv[1])
sys.argv = [ranks[int(os.environ["RANK"])] if word == "OTHER" else word for word in ["distgan", *words]]
sys.exit(main())
"""


def test_one_process_and_torchrun_train_the_same(data: str, tmp_path: Path, cli: Cli) -> None:
    keys = [*TINY, "training.precision=float64", "training.kimg=0.5"]
    command = ["train", "quickstart", f"data.url={data}", *keys, "--no-ray", "--name"]
    assert cli(*command, "alone").code == 0
    process = start(*LAUNCHER, "-m", "distgan", *command, "pair", cwd=tmp_path)
    output = finish(process)
    assert process.returncode == 0, output
    assert "image budget reached" in output, output
    runs = {name: tmp_path / "runs" / name for name in ("alone", "pair")}
    assert json.loads((runs["pair"] / "summary.json").read_text())["workers"] == 2
    alone, pair = (find_checkpoint(f"{run}/checkpoints/step-000000016").tensors["ema"] for run in runs.values())
    for key, value in alone.items():
        torch.testing.assert_close(pair[key], value, rtol=1e-6, atol=1e-9)


def test_a_mistake_is_told_once_and_that_of_one_rank_too(data: str, tmp_path: Path, cli: Cli) -> None:
    script = tmp_path / "as_rank.py"
    script.write_text(AS_RANK)
    train = ["train", "quickstart", *TINY, "training.kimg=0.1", "--no-ray", "--name", "pair"]
    assert cli(*train, f"data.url={data}").code == 0
    given = [
        (["", ""], train, "data.url is not set"),
        ([f"data.url={data}", "data.url=gone"], [*train, "OTHER"], "gone"),
        (["runs", "elsewhere"], [*train, f"data.url={data}", "--storage", "OTHER"], "worker 1 cannot read checkpoint"),
    ]
    for ranks, words, message in given:
        process = start(*LAUNCHER, str(script), json.dumps([ranks, words]), cwd=tmp_path)
        output = finish(process)
        assert process.returncode != 0, output
        (told,) = [line for line in output.splitlines() if "distgan: error: " in line]
        assert message in told, output
