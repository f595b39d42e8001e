"""Everything for a GPU, on the CPU and tiny, so that it works when there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import gpu

ROOT = Path(__file__).parents[2]


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), "--device", "cpu", "--quick", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_all_parts(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    names = list(gpu.parts())
    trees = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in [*names, "parts"]}
    assert {name for name, part in trees["parts"]["parts"].items() if part["error"] is None} == set(names)
    assert trees["tests"]["exit"] == 0
    assert "passed" in trees["tests"]["result"] or "skipped" in trees["tests"]["result"]
    for name in names:
        if name.startswith("step-"):
            rows = {row["name"]: row for row in trees[name]["rows"]}
            assert rows["plain PyTorch"]["images_per_s"] > 0
            assert rows["eager"]["ratio"] > 0
            assert rows["contiguous"]["ok"]
            assert trees[name]["host_draws"]["count"] > 0
    assert [row["same_bits"] or bool(row["reason"]) for row in trees["resume"]["rows"]] == [True, True]
    assert trees["resume"]["rows"][0]["same_bits"]
    for preset in gpu.ROOFLINES:
        assert trees["roofline"][preset]["work"]["flops"] > 0
        assert any(0 < row["share"] < 1 for row in trees["roofline"][preset]["reached"])
    assert trees["train"]["images_per_s"] > 0
    for picture in ("train-curves.png", "train-samples.png"):
        with Image.open(tmp_path / picture) as image:
            image.verify()
    summary = (tmp_path / "summary.md").read_text()
    for section in ("## Steps", "## GPU tests", "## Exact resume", "## Roofline", "## Training"):
        assert section in summary
    assert all(f"| {name} | " in summary for name in names)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_part_that_takes_too_long_is_ended_and_the_next_begins(tmp_path: Path) -> None:
    done = run(tmp_path, "--minutes", "0", "--only", "resume,train")
    assert done.returncode == 1, done.stdout + done.stderr
    parts = json.loads((tmp_path / "parts.json").read_text())["parts"]
    assert parts["resume"]["error"] == "stopped: its share of the time was over"
    assert "train" in parts  # which may be over within the second that each part has
    assert "| train | " in (tmp_path / "summary.md").read_text()


def test_unknown_parts_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--out", str(tmp_path), "--device", "cpu", "--only", "nothing"])
    assert ended.value.code == 2
    assert "--only nothing: no such part; there are tests, step-dcgan-bricks, " in capsys.readouterr().out
