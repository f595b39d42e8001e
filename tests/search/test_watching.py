"""Following a search that another process leads."""

from __future__ import annotations

import io
import uuid
from pathlib import Path

import pytest
from rich.console import Console

from command_line import Cli, one_line
from distgan.search.watching import running_trials, watch_results
from distgan.storage.claim import CLAIM_NAME, Claim
from distgan.storage.storage import Storage
from distgan.tracking.console import Terminal
from run_folders import step_row, write_run
from search_records import finished, make_plan, make_record, make_trial

pytestmark = pytest.mark.timeout(60)


def begin(search: Storage) -> None:
    """A search that another machine's process leads: one trial runs, one waits."""
    plan = make_plan()
    begun = make_trial(plan, 0, state="begun", curve=[(20.0, 1500.0)])
    make_record([begun, make_trial(plan, 1)], plan).save(search)
    write_run(search.child("trials/0000"), rows=[step_row(20.0), step_row(25.5)])
    Claim.new("searches").model_copy(update={"machine": "another"}).write(search)


@pytest.fixture
def search() -> Storage:
    return Storage.open(f"memory://{uuid.uuid4().hex}/rates")


def end(search: Storage) -> None:
    finished(6).save(search)
    search.delete(CLAIM_NAME)


def follow(search: Storage, console: Console) -> str:
    seen = []

    def wait(_: float) -> None:
        seen.append(1)
        if len(seen) == 2:
            end(search)

    watch_results(search.url, console, wait=wait)
    assert len(seen) == 2
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_has_a_table_until_the_end(search: Storage) -> None:
    begin(search)
    terminal = Terminal(file=io.StringIO(), force_terminal=True, force_interactive=True, width=100, height=40)
    out = follow(search, terminal)
    assert "1 running, 1 waiting" in out
    assert "25.5" in out
    assert out.index("1 running, 1 waiting") < out.index("importance of the keys")
    assert "rates: ended (all trials ended) with 6 trials" in out


def test_elsewhere_each_event_is_a_line(search: Storage) -> None:
    begin(search)
    out = follow(search, Terminal(file=io.StringIO(), width=100))
    assert out.count("trial 0 resumes at 20 kimg") == 1
    assert all(out.count(f"trial {number} ended: ") == 1 for number in range(6))
    assert "rates: ended (all trials ended) with 6 trials" in out
    assert "rank" in out


def test_a_search_that_was_killed(search: Storage) -> None:
    begin(search)
    search.delete(CLAIM_NAME)
    console = Terminal(file=io.StringIO(), width=100)
    watch_results(search.url, console, wait=lambda _: pytest.fail("nothing to wait for"))
    assert "no process leads this search" in console.file.getvalue()
    assert "leaderboard.csv" not in search.list()


def test_running_trials_without_rows(search: Storage) -> None:
    plan = make_plan()
    record = make_record([make_trial(plan, number, state="begun") for number in range(3)], plan)
    write_run(search.child("trials/0001"), rows=[step_row(3.0, images_per_second="fast")])
    write_run(search.child("trials/0002"), rows=[])
    assert running_trials(record, search) == {}


def test_the_command(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Storage.open(str(tmp_path / "rates"))
    finished(3).save(search)
    assert "rank" in cli("tune", "--results", search.url, "--watch").out
    assert search.list() == ["search.json"]
    assert "needs --results" in one_line(cli("tune", "quickstart", "--watch"))
    assert "no search there" in one_line(cli("tune", "--results", str(tmp_path), "--watch"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distgan.search.watching.watch_results", interrupted)
    assert cli("tune", "--results", search.url, "--watch").code == 130
