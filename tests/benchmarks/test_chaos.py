"""Faults at drawn steps of runs, against the same run undisturbed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.chaos.comparison import metrics_difference, samples_difference
from benchmarks.chaos.faults import Fault, drawn, kill
from benchmarks.chaos.place import Place
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.runs import OverdueError, Run, seconds_lost

STEP = {"event": "step", "step": 1, "loss/discriminator": 0.5, "images_per_second": 10.0}
SAVED = {"event": "checkpoint", "step": 1, "name": "step-000000001"}


def run(folder: Path, name: str, rows: list[dict[str, object]], samples: str = "0 0 aa\n") -> Run:
    """A run that has written these rows and samples."""
    proxy = Proxy({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    proxy.close()
    made = Run(name, Place(folder, proxy, {}, "", ""), str(folder), 1, "1", time.monotonic())
    (folder / name).mkdir()
    (folder / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made.file("samples").write_text(samples)
    return made


@pytest.mark.parametrize(
    ("rows", "differs"),
    [
        ([SAVED, STEP | {"images_per_second": 5.0, "seconds/data_wait": 0.1, "memory/host_mb": 300.0}], None),
        ([STEP, SAVED, SAVED | {"step": 2, "name": "of a stop"}], None),
        ([STEP | {"loss/discriminator": 0.25}, SAVED], "metrics: step of step 1: loss/discriminator"),
        ([STEP, STEP, SAVED], "metrics: 2 rows, not 1"),
        ([STEP], "metrics: not one row of step-000000001"),
        ([STEP, SAVED, SAVED], "metrics: not one row of step-000000001"),
    ],
)
def test_rows_of_metrics_are_compared(rows: list[dict[str, object]], differs: str | None, tmp_path: Path) -> None:
    assert metrics_difference(run(tmp_path, "found", rows), run(tmp_path, "calm", [STEP, SAVED])) == differs


@pytest.mark.parametrize(
    ("samples", "differs"),
    [
        ("0 0 aa\n0 1 bb\n0 0 aa\n", None),
        ("0 0 aa\n0 1 bb\n0 0 ab\n", "samples of batch 0, group 0"),
        ("0 0 aa\n", "samples of batch 0, group 1"),
        ("0 0 aa\n0 1 bb\n1 0 cc\n", "samples: more batches"),
    ],
)
def test_samples_are_compared(samples: str, differs: str | None, tmp_path: Path) -> None:
    calm = run(tmp_path, "calm", [], "0 0 aa\n0 1 bb\n")
    assert samples_difference(run(tmp_path, "found", [], samples), calm) == differs


def test_repeated_steps_are_time_lost() -> None:
    logged = [(1, 0.0), (2, 1.0), (3, 2.0), (2, 20.0), (3, 21.0), (4, 22.0), (5, 23.0)]
    assert seconds_lost(logged, fault_at=2.5) == 20.0
    assert seconds_lost(logged, fault_at=22.5) == 1.0


def test_every_kind_of_fault_is_drawn_before_any_comes_again() -> None:
    kinds = [Fault(name, kill) for name in "abcde"]
    found = [fault.name for fault in drawn(kinds, 12, random.Random(3))]
    assert sorted(found[:5]) == sorted(found[5:10]) == list("abcde")
    assert found == [fault.name for fault in drawn(kinds, 12, random.Random(3))]
    assert found != [fault.name for fault in drawn(kinds, 12, random.Random(4))]


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(OverdueError, match="no word of it in time, last step 0"):
        run(tmp_path, "late", []).wait_until(lambda: None, "word of it")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_run_has_the_states_of_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--no-ray", "--kills", "2", "--out", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=360, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the ended run's state, metrics and samples: equal" in result.stdout
    assert result.stdout.endswith("2 of 2 equal\n")
