"""A tracker in a module of a user's own (examples/csv_tracker.py), and trackers that fail."""

from __future__ import annotations

import csv
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.tracking.run_folder import RunFolder
from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import EvaluationResult, Event
from example_events import evaluated, images, trained

pytestmark = pytest.mark.timeout(60)

CSV = "csv_tracker:CsvTracker"


class Failing(Tracker):
    """Fails now and then."""

    def event(self, event: Event) -> None:
        if isinstance(event, EvaluationResult):
            raise ConnectionError("no route to the tracking server")

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        raise KeyError("samples")


class Unmade(Tracker):
    def __init__(self, run: TrackedRun) -> None:
        raise RuntimeError("not logged in")


class NoTracker:
    pass


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2] / "examples")])


@pytest.mark.parametrize("where", ["local", "remote"])
def test_the_example_has_each_number_once_also_after_a_resume(where: str, tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path) if where == "local" else f"memory://{uuid.uuid4().hex}/run")
    with RunFolder(storage, None, trackers=[CSV]) as folder:
        for step in (10, 20, 30):
            folder.event(trained(step))
    with RunFolder(storage, 20, trackers=[CSV]) as folder:
        folder.event(replace(evaluated(30, 900.0), more={"recall_lite0_2k": 0.5}))
    header, *rows = csv.reader(storage.read_bytes("metrics.csv").decode().splitlines())
    assert header == ["step", "kimg", "name", "value"]
    per_step = ["loss/generator", "loss/discriminator", "images_per_second"]
    wanted = [*((step, name) for step in ("10", "20") for name in per_step)]
    assert [(row[0], row[2]) for row in rows] == [*wanted, ("30", "fd_lite0_2k"), ("30", "recall_lite0_2k")]
    assert rows[0] == ["10", "1", "loss/generator", "0.8"]
    assert storage.list() == ["metrics.csv", "metrics.jsonl"]  # no other tracker is on the list


def test_a_tracker_that_fails_is_reported_once_and_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    names = ["test_own_tracker:Failing", "test_own_tracker:Unmade", "samples"]
    with RunFolder(Storage.open(str(tmp_path)), None, said.append, trackers=names) as folder:
        for step in (10, 20):
            folder.event(evaluated(step, 900.0))
            folder.samples(step, step / 10, images())
            folder.flush()
    assert [line.partition(":")[0] for line in said] == ["tracker test_own_tracker"] * 2
    assert "test_own_tracker:Unmade: it raised RuntimeError: not logged in (test_own_tracker.py, line " in said[0]
    assert "test_own_tracker:Failing: it raised ConnectionError: no route" in said[1]
    assert all(line.endswith("; training continues without it") for line in said)
    assert len(list((tmp_path / "samples").iterdir())) == 2
    assert (tmp_path / "metrics.jsonl").read_text().count("evaluation") == 2


def test_what_is_no_tracker_is_refused_at_the_start(tmp_path: Path) -> None:
    for name, message in (
        ("test_own_tracker:NoTracker", "must be a subclass of distgan.tracking.tracker.Tracker"),
        ("test_own_tracker:Gone", "has no class 'Gone'"),
    ):
        with pytest.raises(UserError, match=message):
            RunFolder(Storage.open(str(tmp_path)), None, trackers=[name])
    with pytest.raises(UserError, match="tracking: unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        load_config("quickstart", ["tracking=[tensorbord]"])
    assert load_config("quickstart").tracking == ["tensorboard", "samples", "curves"]
