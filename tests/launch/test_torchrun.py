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

# One command after another, each in a process that has imported torch already, and with keys of its own in the
# launcher's store. Rank 1 is given another word in the place of OTHER than rank 0.
AS_RANKS = """
import json, os, sys
import distgan.training.train, torch._dynamo
from distgan.cli.main import main

for number, (ranks, words) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(number)
        sys.argv = [ranks[int(os.environ["RANK"])] if word == "OTHER" else word for word in ["distgan", *words]]
        sys.exit(main())
    print("exit code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
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
    script = tmp_path / "as_ranks.py"
    script.write_text(AS_RANKS)
    train = ["train", "quickstart", *TINY, "training.kimg=0.1", "--no-ray", "--name", "pair"]
    assert cli(*train, f"data.url={data}").code == 0
    given = [
        (["", ""], train, "data.url is not set"),
        ([f"data.url={data}", "data.url=gone"], [*train, "OTHER"], "gone"),
        (["runs", "elsewhere"], [*train, f"data.url={data}", "--storage", "OTHER"], "worker 1 cannot read checkpoint"),
    ]
    commands = json.dumps([(ranks, words) for ranks, words, _ in given])
    output = finish(start(*LAUNCHER, str(script), commands, cwd=tmp_path))
    told = [line for line in output.splitlines() if "distgan: error: " in line]
    assert len(told) == len(given), output
    assert all(message in line for (_, _, message), line in zip(given, told, strict=True)), output
    codes = [line for line in output.splitlines() if line.startswith("exit code ")]
    assert len(codes) == 2 * len(given), output
    assert "exit code 0" not in codes, output
