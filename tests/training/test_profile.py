"""`--profile`: a trace that can be opened, and a table whose parts are those of a step."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.tracking import formatting
from distgan.training.events import Event, ProfileWritten
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from gloo import run_workers
from runs import Recorder, pack_bricks, tiny_config

pytestmark = pytest.mark.timeout(120)
STEPS = 20


def profiled_events(distributed: Distributed, config: Config, folder: Path) -> list[Event]:
    recorder = Recorder()
    train(RunSpec(config, "profiled", str(folder), profile=True), distributed, recorder)
    return [event for event in recorder.events if isinstance(event, ProfileWritten)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "workers"), [("quickstart", 1), pytest.param("wgan-gp-faces", 2, marks=pytest.mark.slow)]
)
def test_a_profile_says_where_a_step_spends_its_time(preset: str, workers: int, tmp_path: Path) -> None:
    config = tiny_config(preset, pack_bricks(tmp_path / "data"), STEPS)
    events, *others = run_workers(profiled_events, workers, config, tmp_path)
    assert others == [[]] * (workers - 1)
    (event,) = events
    parts = dict(event.milliseconds)
    whole, collective = parts.pop("step"), parts.pop("all-reduce")
    assert set(parts) == {"data wait", "discriminator", "generator", "optimizers", "average", "rest"}
    assert sum(parts.values()) == pytest.approx(whole)
    assert all(value > 0 for value in (whole, *parts.values()))
    assert (collective > 0) == (workers > 1)
    trace = json.loads(gzip.decompress((tmp_path / "profiled" / "profile" / "trace.json.gz").read_bytes()))
    names = [each["name"] for each in trace["traceEvents"] if str(each.get("name", "")).startswith("distgan: training")]
    assert len(names) == 10
    first, *rows, between, last = formatting.profile(event).splitlines()
    assert first.startswith("profile of a step, mean of 10: ")
    assert sum(int(row.split()[-1].removesuffix("%")) for row in rows[: len(parts)]) == pytest.approx(100, abs=3)
    assert len(rows) == len(parts) + (workers > 1)
    assert "evaluations" in between
    assert last.endswith("profile/trace.json.gz")


def test_a_session_that_is_too_short_says_so(tmp_path: Path) -> None:
    config = tiny_config("quickstart", pack_bricks(tmp_path / "data"), 3)
    (events,) = run_workers(profiled_events, 1, config, tmp_path)
    assert formatting.profile(events[0]) == "profile: the session had too few steps to record"
