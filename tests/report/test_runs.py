"""`distgan runs`: the states of runs, what is shown of one, and copies."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import pytest

from command_line import Cli, one_line
from distgan.report.run_list import RunRow, list_runs
from distgan.storage.claim import Claim
from distgan.storage.storage import Storage
from page_reader import EVIL
from run_folders import evaluation_row, step_row, summary, write_run
from search_records import finished

pytestmark = pytest.mark.timeout(60)


def write_runs(folder: Storage) -> None:
    """A run of each state, and a search."""
    write_run(folder.child("plateau"), end=summary(reason="plateau"))
    write_run(folder.child("time"), end=summary(reason="time"))
    write_run(folder.child("ill"), end=summary(reason="mode collapse"))
    write_run(folder.child("error"), end={"reason": "error", "error": "the bucket is full"})
    write_run(folder.child("killed"), end=summary(kimg=9.0))
    write_run(folder.child("none"), rows=[], end={})
    write_run(folder.child("runs"), end=summary(kimg=9.0))
    Claim.new("trains this run").model_copy(update={"machine": "another"}).write(folder.child("runs"))
    finished(12).save(folder.child("rates"))
    folder.write_bytes("notes.txt", b"")
    folder.write_bytes("data/index.json", b"{}")


def check_list(url: str) -> None:
    rows, left = list_runs(url)
    assert left == 0
    assert {row.name: row.shown_state for row in rows} == {
        "plateau": "done: plateau",
        "time": "stopped: time",
        "ill": "failed: mode collapse",
        "error": "failed: error",
        "killed": "killed",
        "none": "killed",
        "runs": "running",
        "rates": "done",
    }
    found = {row.name: row for row in rows}
    run, search = found["runs"], found["rates"]
    assert (run.kind, run.kimg, run.budget_kimg, run.metric) == ("run", 10.0, 240.0, "fd_lite0_300")
    assert (run.best, run.best_kimg) == (757.0, 8.0)
    assert (found["none"].kimg, found["none"].best) == (0.0, None)
    assert found["error"].error == "the bucket is full"
    assert search.kind == "search"
    assert search.best is not None
    assert all(row.updated is not None and abs(time.time() - row.updated) < 100 for row in rows)


def test_the_states_of_runs(tmp_path: Path) -> None:
    write_runs(Storage.open(str(tmp_path)))
    check_list(str(tmp_path))


def test_the_states_of_runs_in_a_bucket(bucket: str) -> None:
    write_runs(Storage.open(bucket))
    check_list(bucket)


def test_of_long_metrics_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Storage.open(f"memory://{uuid.uuid4().hex}/long")
    rows = [step_row(kimg / 100) for kimg in range(1, 2001)]
    write_run(run, rows=[*rows, evaluation_row(20.0, 5.0, best=5.0)], end=summary(kimg=20.0))
    whole = Storage.read_bytes

    def read_bytes(self: Storage, name: str, *, most: int | None = None) -> bytes:
        assert name != "metrics.jsonl"
        return whole(self, name, most=most)

    monkeypatch.setattr(Storage, "read_bytes", read_bytes)
    (row,) = list_runs(run.url.rpartition("/")[0])[0]
    assert (row.kimg, row.best, row.state) == (20.0, 5.0, "done")


def test_ages() -> None:
    ages = {5: "5 s", 300: "5 min", 7300: "2 h", 200_000: "2 d"}
    for seconds, text in ages.items():
        assert RunRow("a", "a", "run", "done", updated=time.time() - seconds - 0.5).age == text
    assert RunRow("a", "a", "run", "done").age == ""


def test_the_table_holds_at_80_columns(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = Storage.open(str(tmp_path))
    write_runs(folder)
    write_run(folder.child("a-name-" * 6), end=summary(budget_kimg=100_000.0, reason="interrupted"))
    write_run(folder.child("\x1b[31mred"), end={"reason": "error", "error": f"{EVIL} https://me:hunter2@host/x"})
    out = cli("runs", "list", str(tmp_path)).out
    lines = out.splitlines()
    table = lines[: next(place for place, line in enumerate(lines) if line.startswith("error: "))]
    assert all(len(line) <= 80 for line in table)
    assert "interrupted" in out
    assert "10 of 100,000" in out
    assert "\nerror: the bucket is full\n" in out
    assert "hunter2" not in out
    assert "\x1b" not in out
    rows = json.loads(cli("runs", "list", str(tmp_path), "--json").out)
    assert {row["state"] for row in rows} == {"done", "stopped", "failed", "killed", "running"}


def test_no_runs(cli: Cli, tmp_path: Path) -> None:
    assert cli("runs", "list", str(tmp_path)).out == f"{tmp_path}: no runs there\n"
    assert "does not exist" in one_line(cli("runs", "list", str(tmp_path / "gone")))
    write_run(Storage.open(str(tmp_path / "toy")))
    assert "distgan runs show" in one_line(cli("runs", "list", str(tmp_path / "toy")))
    finished(3).save(Storage.open(str(tmp_path / "rates")))
    assert "/rates/trials" in one_line(cli("runs", "list", str(tmp_path / "rates")))
    assert "distgan tune --results" in one_line(cli("runs", "show", str(tmp_path / "rates")))
    (tmp_path / "rates" / "search.json").write_text("{}")
    (row,) = [row for row in list_runs(str(tmp_path))[0] if row.name == "rates"]
    assert (row.state, "not a search" in row.error) == ("failed", True)
    (tmp_path / "toy" / "summary.json").write_bytes(b" " * 2_000_000)
    (row,) = [row for row in list_runs(str(tmp_path))[0] if row.name == "toy"]
    assert (row.state, "larger than" in row.error) == ("failed", True)
    assert "no metrics.jsonl" in one_line(cli("runs", "show", str(tmp_path)))
    assert "no metrics.jsonl" in one_line(cli("runs", "fetch", str(tmp_path), "--out", str(tmp_path / "copy")))


def test_a_run_is_shown(cli: Cli, tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path / "toy"))
    write_run(folder)
    folder.write_bytes("checkpoints/step-000000080/manifest.json", b"{}")
    out = cli("runs", "show", folder.url).out
    for words in (
        "plateau: no better fd_lite0_300",
        "757.0 at 8 kimg",
        "from 0 kimg: worker 1 was lost: out of memory",
        "mode collapse from 3 to 6 kimg",
        "step-000000080",
        "samples/kimg-000010.000.png",
        f"to look at it: distgan report {folder.url}",
    ):
        assert words in " ".join(out.split())
    found = json.loads(cli("runs", "show", folder.url, "--json").out)
    assert (found["state"], found["files"]["checkpoints"]) == ("done", ["step-000000080"])
    write_run(folder, rows=[], end={"reason": "error", "error": "no data"}, grids=0)
    assert "failed: error: no data" in cli("runs", "show", folder.url).out


def test_what_one_looks_at_is_copied(cli: Cli, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, search = Storage.open(bucket).child("toy"), Storage.open(bucket).child("rates")
    write_run(run)
    run.write_bytes("curves.png", b"a picture")
    run.write_bytes("reals.png", b"another")
    run.write_bytes("checkpoints/step-000000080/state.pt", b"large")
    monkeypatch.chdir(tmp_path)
    assert cli("runs", "fetch", run.url).code == 0
    names = {path.relative_to("toy").as_posix() for path in Path("toy").rglob("*") if path.is_file()}
    pictures = {"curves.png", "reals.png", "samples/kimg-000010.000.png"}
    assert names == {"config.yaml", "metrics.jsonl", "summary.json"} | pictures
    assert Path("toy/curves.png").read_bytes() == b"a picture"
    assert cli("report", "toy").code == 0
    assert "would be copied to" in one_line(cli("runs", "fetch", "toy"))
    assert "on this machine" in one_line(cli("runs", "fetch", "toy", "--out", f"{bucket}/copy"))
    finished(3).save(search)
    assert cli("runs", "fetch", search.url, "--out", "here").out.endswith("here: search.json\n")
