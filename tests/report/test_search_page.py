"""The page of a search: leaderboard, figures of all trials, and the runs of the best."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from command_line import Cli, one_line
from distgan.report.page import search_page, write_report
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord
from distgan.storage.storage import Storage
from page_reader import EVIL, PageReader
from run_folders import write_run
from search_records import finished, make_plan, make_record, make_trial

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def search() -> Storage:
    return Storage.open(f"memory://{uuid.uuid4().hex}/rates")


def save(record: SearchRecord, search: Storage, runs: int) -> list[str]:
    """Writes a search with the runs of its best trials; their names, the best first."""
    record.save(search)
    names = [one.best_run.name for one in leaderboard(record.plan, record.trials)[:runs]]
    for name in names:
        write_run(search.child(f"trials/{name}"))
    return names


def test_a_search_has_its_trials(search: Storage) -> None:
    record = finished(30)
    names = save(record, search, 3)
    page = PageReader.of(search_page(search.url))
    ranked = leaderboard(record.plan, record.trials)
    assert page.data["runs"] == names
    assert len(page.data["grids"]) == 3
    assert "ended: all trials ended" in page.text
    assert "Trials without a value" in page.text
    assert "RuntimeError: out of memory" in page.text
    curves, parallel, bars = page.data["plots"]
    assert len(curves["traces"]) == len(parallel["traces"]) == len(ranked)
    assert [list(point) for point in ranked[0].trial.curve] == [
        list(point) for point in zip(curves["traces"][-1]["x"], curves["traces"][-1]["y"], strict=True)
    ]
    assert len(parallel["traces"][0]["y"]) == len(record.plan.space) + 1
    assert bars["traces"][0]["y"][0] == "generator.lr"
    assert sum(bars["traces"][0]["x"]) == pytest.approx(1)


def test_a_search_without_results_or_folders(search: Storage) -> None:
    plan = make_plan()
    save(make_record([make_trial(plan, 0)], plan), search, 0)
    page = PageReader.of(search_page(search.url))
    assert "No trial has a value." in page.text
    assert "running, or killed" in page.text
    save(finished(12), search, 0)
    assert PageReader.of(search_page(search.url)).data["runs"] == []


def test_what_others_wrote_is_text(search: Storage) -> None:
    record = finished(14)
    record = record.model_copy(update={"name": EVIL, "plan": record.plan.model_copy(update={"metric": EVIL})})
    record.trials[12].note = EVIL
    save(record, search, 1)
    page = PageReader.of(search_page(search.url))
    assert len(page.tags_of("script")) == 3
    assert not [found for _, found in page.tags if "onerror" in found]
    assert "<img" not in json.dumps(page.data["plots"])


def test_a_search_stands_alone(cli: Cli, tmp_path: Path) -> None:
    search, run = Storage.open(str(tmp_path / "rates")), Storage.open(str(tmp_path / "run"))
    save(finished(3), search, 1)
    write_run(run)
    out = str(tmp_path / "out.html")
    assert "a search, which has a page of its own" in one_line(cli("report", run.url, search.url, "--out", out))
    assert write_report([search.url], out) > 0
    search.write_bytes("search.json", b"{}")
    assert "not a search that distgan" in one_line(cli("report", search.url, "--out", out))
