"""`make demo` in miniature: it ends with its pictures, also after Ctrl-C, and leaves no process behind."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from PIL import Image

from processes import TINY, finish, our_processes, start, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(400)]

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
# The demo renders at 32x32.
KEYS = [key for key in TINY if not key.startswith("image_size")]


def test_demo_stopped_and_begun_again(tmp_path: Path) -> None:
    before = our_processes()
    command = [str(DEMO), "--out", "out", "--samples", "256", *KEYS]
    process = start(*command, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "evaluation at 1" in line:
            process.send_signal(signal.SIGINT)
            break
    output = finish(process)
    assert process.returncode == 130, output
    assert "state saved" in output, output
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)

    output = finish(start(*command, cwd=tmp_path))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["reason"] == "budget", output
    assert summary["resumed_at_kimg"] >= 1
    assert "data render" not in output
    with Image.open(tmp_path / "out" / "samples.png") as grid:
        assert min(grid.size) > 8 * 32
    with Image.open(tmp_path / "out" / "training.png") as rows:
        cell = (rows.width - 2) // 8  # a row for the untrained generator, then one an evaluation
        assert rows.height % cell == 2
        assert rows.height >= 2 * cell
    with Image.open(tmp_path / "out" / "curves.png") as curves:
        assert len(curves.convert("RGB").getcolors(2**24) or []) > 10
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)
