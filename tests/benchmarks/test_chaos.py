"""Faults at drawn steps of a run, against the same run undisturbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.timeout(400)
def test_a_killed_run_has_the_states_of_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--no-ray", "--kills", "2", "--out", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=360, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "final states equal; metrics equal" in result.stdout
    assert result.stdout.endswith("2 of 2 equal\n")
