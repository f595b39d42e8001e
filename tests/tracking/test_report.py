"""What a run leaves in its folder, and what it shows in the terminal."""

from __future__ import annotations

import errno
import io
import json
import math
import re
import threading
import time
import uuid
from dataclasses import replace
from io import FileIO
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from distgan.errors import UserError
from distgan.launch.local import Outcome
from distgan.storage.storage import Storage, UnavailableError
from distgan.tracking import formatting, run_folder, tensorboard
from distgan.tracking.console import Display, Eta
from distgan.tracking.grids import image_grid, png_bytes, with_column_names, with_row_names
from distgan.tracking.jsonl import read_rows
from distgan.tracking.plots import draw_curves
from distgan.tracking.record import RunRecord, read_summary, recorded_failure
from distgan.tracking.run_folder import RunFolder, RunReporter
from distgan.tracking.tables import remaining_share, summary_table
from distgan.training.events import Attempt, CheckpointSaved, RunFinished, RunStarted, Summary
from distgan.training.unsaved import unsaved_folder
from example_events import METRIC, evaluated, images, trained

pytestmark = pytest.mark.timeout(60)

STARTED = RunStarted(
    "toy",
    False,
    0,
    0.0,
    100.0,
    2,
    4,
    1,
    "cpu",
    128,
    3_600_000,
    812_000,
    "s3://bucket/bricks",
    40_000,
    METRIC,
    "seed: 1\n",
)
SUMMARY = Summary(
    name="toy",
    metric=METRIC,
    reason="budget",
    kimg=100.0,
    budget_kimg=100.0,
    steps=782,
    untrained=2701.0,
    best=757.0,
    best_kimg=90.0,
    latest=760.0,
    latest_kimg=100.0,
    floor=45.0,
    floor_images=2000,
    without_improvement=3,
    best_checkpoint="best",
    last_checkpoint="last",
    workers=2,
    resumed_at_kimg=0.0,
    images_per_second=415.0,
    seconds={"total": 240.0, "training": 180.0, "evaluation": 60.0, "data wait": 12.0},
)


@pytest.fixture
def remote() -> Storage:
    return Storage.open(f"memory://{uuid.uuid4().hex}/run")


def steps(data: bytes) -> list[tuple[str, int]]:
    return [(row["event"], row["step"]) for row in map(json.loads, data.splitlines())]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_image_at_its_place_in_near_square_rows(channels: int) -> None:
    batch = torch.randint(0, 256, (7, channels, 4, 6), dtype=torch.uint8)
    picture = image_grid(batch, padding=1, scale=2)
    assert picture.size == (3 * 13 + 1, 3 * 9 + 1)
    pixels = np.asarray(picture).reshape(28, 40, channels)
    for place, image in enumerate(batch.numpy()):
        row, column = divmod(place, 3)
        cell = pixels[1 + 9 * row : 9 + 9 * row, 1 + 13 * column : 13 + 13 * column]
        for part in (cell[::2, ::2], cell[1::2, 1::2]):
            assert np.array_equal(part.transpose(2, 0, 1), image)
    assert (pixels[::9] == 255).all()
    assert (pixels[:, ::13] == 255).all()
    assert image_grid(batch, columns=9, padding=0).size == (42, 4)


def test_a_grid_survives_png() -> None:
    picture = image_grid(images())
    with Image.open(io.BytesIO(png_bytes(picture))) as again:
        assert np.array_equal(np.asarray(again), np.asarray(picture))


def test_a_local_run_leaves_its_files(tmp_path: Path) -> None:
    with RunFolder(Storage.open(str(tmp_path)), None) as folder:
        folder.event(STARTED)
        folder.event(evaluated(0, 2701.0))
        folder.event(trained(10))
        assert steps((tmp_path / "metrics.jsonl").read_bytes()) == [("evaluation", 0), ("step", 10)]
        folder.samples(10, 123.4, images())
        folder.event(trained(20, math.nan))
        folder.event(CheckpointSaved(20, 2.0, "000020"))
        folder.event(RunFinished(replace(SUMMARY, latest=math.nan)))
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"
    rows = read_rows(tmp_path / "metrics.jsonl")
    moments = [row.pop("time") for row in rows]
    assert moments == sorted(moments)
    assert abs(moments[0] - time.time()) < 60
    assert rows[1:3] == [
        {
            "event": "step",
            "step": step,
            "kimg": step / 10,
            "images_per_second": 415.0,
            "loss/generator": generator,
            "loss/discriminator": 1.2,
        }
        for step, generator in ((10, 0.8), (20, None))
    ]
    with Image.open(tmp_path / "samples" / "kimg-000123.400.png") as picture:
        assert picture.size == (3 * 66 + 2, 2 * 66 + 2)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == replace(SUMMARY, latest=None).as_dict()
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 800
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, round(e.value, 3)) for e in board.Scalars("loss/generator")] == [(1000, 0.8)]
    assert [e.value for e in board.Scalars("progress/kimg")] == [0, 1, 2]
    assert board.Scalars(f"distance/{METRIC}")[0].value == 2701
    assert board.Images("samples")[0].step == 123_400
    (text,) = board.Tensors("configuration/text_summary")
    assert b"seed: 1" in text.tensor_proto.string_val[0]


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_killed_and_resumed_run_has_each_step_once(
    where: str, tmp_path: Path, remote: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = remote if where == "remote" else Storage.open(str(tmp_path))
    with RunFolder(storage, None) as folder:
        for step in (10, 20, 30, 40):
            folder.event(trained(step))
    killed = storage.read_bytes("metrics.jsonl") + b'{"event": "step", "step": 3'
    storage.write_bytes("metrics.jsonl", killed)
    storage.write_bytes("checkpoints/000020/manifest.json", b"{}")
    later = time.time() + 10  # TensorBoard reads files in the order of the seconds in their names
    monkeypatch.setattr(time, "time", lambda: later)
    with RunFolder(storage, 20) as folder:
        for step in (30, 40, 50):
            folder.event(trained(step, 0.5))
    expected = [("step", step) for step in (10, 20, 30, 40, 50)]
    assert steps(storage.read_bytes("metrics.jsonl")) == expected
    assert storage.read_bytes("checkpoints/000020/manifest.json") == b"{}"
    for name in storage.child("tensorboard").list():
        storage.download(f"tensorboard/{name}", tmp_path / "board" / name)
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    found = [(e.step, round(e.value, 1)) for e in board.Scalars("loss/generator")]
    assert found == [(1000, 0.8), (2000, 0.8), (3000, 0.5), (4000, 0.5), (5000, 0.5)]


def test_tensorboard_reads_a_run_in_a_bucket(bucket: str) -> None:
    """By its own layer for files, which takes fsspec where there is no boto3."""
    with RunFolder(Storage.open(bucket).child("run"), None) as folder:
        folder.event(STARTED)
        folder.event(trained(10))
    board = EventAccumulator(f"{bucket}/run/tensorboard").Reload()
    assert [event.step for event in board.Scalars("loss/generator")] == [1000]


def test_the_configuration_is_there_from_the_start(recording: Recording) -> None:
    reporter = RunReporter(recording, lambda event: None, lambda: False)
    reporter.event(STARTED)
    assert recording.began.wait(30)
    recording.gate.set()
    reporter.close()
    assert recording.read_bytes("config.yaml") == b"seed: 1\n"


def test_a_run_that_begins_again_keeps_no_metrics(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder(Storage.open(str(tmp_path)), None) as folder:
            folder.event(trained(10))
    assert steps((tmp_path / "metrics.jsonl").read_bytes()) == [("step", 10)]


def test_a_resume_without_metrics_starts_a_file(remote: Storage) -> None:
    with RunFolder(remote, 20) as folder:
        folder.event(trained(30))
    assert steps(remote.read_bytes("metrics.jsonl")) == [("step", 30)]


class Recording(Storage):
    """Remote storage that notes what is written, and waits with it while its gate is closed."""

    gate = threading.Event()
    began = threading.Event()
    written: tuple[str, ...] = ()

    def write_bytes(self, name: str, data: bytes) -> None:
        Recording.began.set()
        assert Recording.gate.wait(30)
        Recording.written += (name,)
        super().write_bytes(name, data)


@pytest.fixture
def recording(remote: Storage) -> Recording:
    Recording.gate.clear()
    Recording.began.clear()
    Recording.written = ()
    return Recording(remote.url, remote.protocol, remote.root)


def test_a_slow_upload_does_not_hold_up_training(recording: Recording) -> None:
    folder = RunFolder(recording, None)
    folder.event(evaluated(0, 2701.0))
    folder.flush()
    assert recording.began.wait(30)
    for step in (10, 20):
        folder.event(trained(step))
        folder.samples(step, step / 10, images())
        folder.flush()
    assert recording.written == ()
    recording.gate.set()
    folder.close()
    assert steps(recording.read_bytes("metrics.jsonl")) == [("evaluation", 0), ("step", 10), ("step", 20)]
    assert recording.child("samples").list() == ["kimg-000001.000.png", "kimg-000002.000.png"]


def test_only_changed_files_are_uploaded(recording: Recording) -> None:
    recording.gate.set()
    with RunFolder(recording, None) as folder:
        folder.samples(0, 0.0, images())
        for step in (10, 20):
            folder.event(trained(step))
            folder.event(evaluated(step, 2000.0))
            folder.flush()
    assert recording.written.count("samples/kimg-000000.000.png") == 1


def test_pictures_uploaded_once_are_not_uploaded_again(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard, "_FILE_BYTES", 1000)
    recording.gate.set()
    with RunFolder(recording, None) as folder:
        for step in (10, 20, 30):
            folder.samples(step, step / 10, images(16, 32))
            folder.flush()
    files = [name for name in recording.written if name.startswith("tensorboard/")]
    assert len(set(files)) == 3
    assert len(files) <= 4


def uploaded(folder: RunFolder) -> None:
    """Returns when what `flush` has begun is done."""
    folder.flush()
    assert folder._uploads is not None
    folder._uploads._executor.submit(lambda: None).result(30)


def test_failed_uploads_are_told_once_and_end_nothing(remote: Storage) -> None:
    said: list[str] = []
    folder = RunFolder(remote, None, said.append)
    blocked = fsspec.filesystem("memory")
    for outage in (1, 2):
        blocked.pipe_file(remote.root, b"a file in the folder's place")
        for step in (10, 20):
            folder.event(trained(10 * outage + step))
            folder.samples(step, step / 10, images())
            uploaded(folder)
        assert len(said) == outage
        assert "training continues, and metrics and pictures are uploaded when it works again" in said[-1]
        blocked.rm_file(remote.root)
        uploaded(folder)
        assert steps(remote.read_bytes("metrics.jsonl"))[-1] == ("step", 10 * outage + 20)
    assert remote.child("samples").list() == ["kimg-000001.000.png", "kimg-000002.000.png"]
    folder.close()
    assert not Path(folder._run.folder).exists()


def test_what_cannot_be_uploaded_at_the_end_is_kept_here(remote: Storage) -> None:
    said: list[str] = []
    folder = RunFolder(remote, None, said.append)
    fsspec.filesystem("memory").pipe_file(remote.root, b"a file in the folder's place")
    folder.event(trained(10))
    folder.close()
    kept = unsaved_folder(remote)
    assert f"metrics and pictures are in {kept} on " in said[-1]
    assert steps((kept / "metrics.jsonl").read_bytes()) == [("step", 10)]
    assert not Path(folder._run.folder).exists()


def test_a_grid_that_cannot_be_drawn_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the font for the names of its columns."""

    def missing(*_: object) -> None:
        raise OSError("cannot open resource")

    monkeypatch.setattr(run_folder, "with_column_names", missing)
    said: list[str] = []
    with RunFolder(Storage.open(str(tmp_path)), None, said.append) as folder:
        folder.event(trained(10))
        for _ in range(2):
            folder.samples(10, 1.0, images(), 3, ["one", "two", "three"])
        folder.event(trained(20))
    (line,) = said
    assert line.endswith("; training continues without it")
    assert steps((tmp_path / "metrics.jsonl").read_bytes()) == [("step", 10), ("step", 20)]


def record_of(folder: RunFolder) -> RunRecord:
    record = folder._trackers["metrics.jsonl"]
    assert isinstance(record, RunRecord)
    return record


def test_a_disk_that_is_full_for_a_while_loses_no_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    folder = RunFolder(Storage.open(str(tmp_path)), None, said.append)
    folder.event(trained(10))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_bytes", full)
        patch.setattr(SummaryWriter, "add_scalar", full)
        metrics = record_of(folder)._metrics
        patch.setattr(metrics, "write", lambda data: FileIO.write(metrics, data[:-3]), raising=False)
        folder.event(trained(20))
        folder.samples(20, 2.0, images())
    assert len(said) == 1
    folder.event(trained(30))
    folder.close()
    assert steps((tmp_path / "metrics.jsonl").read_bytes()) == [("step", 10), ("step", 20), ("step", 30)]
    assert (tmp_path / "samples" / "kimg-000002.000.png").exists()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_failure_that_is_over_at_the_end_loses_nothing(remote: Storage) -> None:
    folder = RunFolder(remote, None)
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file(remote.root, b"a file in the folder's place")
    folder.event(trained(10))
    folder.flush()
    assert folder._uploads is not None
    folder._uploads._executor.shutdown(wait=True)
    filesystem.rm_file(remote.root)
    folder.close()
    assert steps(remote.read_bytes("metrics.jsonl")) == [("step", 10)]


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        RunFolder(Storage.open(str(tmp_path / "file" / "run")), None)


@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_curves_are_drawn_from_any_number_of_rows(count: int, tmp_path: Path) -> None:
    with RunFolder(Storage.open(str(tmp_path)), None) as folder:
        for place in range(count):
            folder.event(trained(place * 10, math.nan if place % 7 == 3 else 1.0))
            folder.event(evaluated(place * 10, math.nan if place == 5 else 2701.0 / (place + 1)))
    rows = read_rows(tmp_path / "metrics.jsonl")
    draw_curves(rows, tmp_path / "curves.png", title="toy", floor=45.0 if count % 2 == 0 else None)
    with Image.open(tmp_path / "curves.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("newer", [0, 1])
def test_curves_of_a_run_that_an_earlier_version_began(newer: int, tmp_path: Path) -> None:
    """Its evaluations have a `distance`, and do not say what is better."""
    old = {"event": "evaluated", "step": 10, "kimg": 1.0, "metric": METRIC, "distance": 900.0, "best": 900.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(old | {"best_kimg": 1.0}) + "\n")
    with RunFolder(Storage.open(str(tmp_path)), 10) as folder:
        for _ in range(newer):
            folder.event(evaluated(20, 800.0))
        folder.event(RunFinished(SUMMARY))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["value"] for row in rows] == [900.0, 800.0][: 1 + newer]
    assert not any(row["higher_is_better"] for row in rows)
    assert (tmp_path / "curves.png").is_file()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal(clock: Clock, live: bool) -> tuple[Display, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, width=100, force_terminal=live, force_interactive=live, color_system=None)
    return Display(console, clock), output


def test_without_a_terminal_there_are_plain_lines() -> None:
    clock = Clock()
    display, output = terminal(clock, live=False)
    with display:
        display.message("starting [Ray]")
        display.event(STARTED)
        display.event(evaluated(0, 2701.0, best=None, best_kimg=None, improved=False))
        for second in range(1, 11):
            clock.now = float(second)
            display.event(trained(10 * second))
        display.event(CheckpointSaved(100, 10.0, "000100"))
        display.event(evaluated(90, 2701.0))
        worse = evaluated(100, 2800.0, improved=False, best=2701.0, best_kimg=9.0, without_improvement=1)
        display.event(worse)
        display.event(RunFinished(SUMMARY))
    lines = output.getvalue().splitlines()
    assert lines[0] == "starting [Ray]"
    assert "2 workers" in lines[1]
    assert "3.6 M" in lines[1]
    assert "40,000 images" in lines[1]
    assert f"{METRIC} 2,701 (untrained)" in lines[2]
    assert [line.split(" of ")[0] for line in lines[3:5]] == ["1", "6"]
    assert "415.0 images/s, generator 0.800, discriminator 1.20, 1:39 left" in lines[3]
    assert f"{METRIC} 2,701 (best so far)" in lines[5]
    assert f"{METRIC} 2,800 (best 2,701 at 9 kimg, 1 of 5 evaluations without improvement)" in lines[6]
    assert "image budget reached" in lines[7]
    assert len(lines) == 8


def test_on_a_terminal_there_is_one_live_panel() -> None:
    clock = Clock()
    display, output = terminal(clock, live=True)
    with display:
        display.event(STARTED)
        display.event(evaluated(0, 2800.0, best=None, best_kimg=None, improved=False))
        display.event(trained(0))
        assert "2,800   untrained" in output.getvalue()
        clock.now = 10.0
        display.event(trained(100))
        display.event(evaluated(100, 2701.0))
        display.message("a worker was lost")
        display.event(replace(STARTED, kimg=10.0, workers=1))
        display.event(trained(200))
    shown = output.getvalue()
    assert "a worker was lost\n" in shown.replace("\r", "")
    last = shown[shown.rindex("run ") :]
    for part in (
        "toy",
        "1 worker on cpu",
        "20 of 100 kimg  20%",
        "415.0 images/s",
        "generator 0.800",
        METRIC,
        "best 2,701",
        "0 of 5",
    ):
        assert part in last


def test_the_time_left_counts_evaluations_in() -> None:
    pace = Eta(0.0, 100.0, now=0.0)
    assert pace.seconds_left(5.0) is None
    pace.evaluated(0.0, now=50.0)
    pace.trained(5.0, now=60.0)
    assert pace.seconds_left(60.0) == pytest.approx(190)
    pace.trained(10.0, now=70.0)
    pace.evaluated(10.0, now=90.0)
    assert pace.seconds_left(90.0) == pytest.approx(360)
    pace.trained(15.0, now=100.0)
    assert pace.seconds_left(105.0) == pytest.approx(345)
    for period in range(2, 6):
        pace.evaluated(10.0 * period, now=90.0 + 10 * period)
    assert pace.seconds_left(140.0) == pytest.approx(50)


def table_text(summary: Summary) -> str:
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(summary_table(summary))
    return console.export_text()


def test_the_summary_tells_why_it_stopped_and_how_good_it_is() -> None:
    text = table_text(SUMMARY)
    for part in (
        "image budget reached",
        "100 kimg in 782 steps, 2 workers",
        "training 3:00 (75%)",
        "data wait 0:12 (5%, within training)",
        f"{METRIC} best",
        "757.0 at 90 kimg",
        f"{METRIC} final ",
        "to continue: the same command with training.kimg above 100",
        "26.8 % (0 % = real data, 100 % = untrained)",
        "45.0 (2,000 real images)",
    ):
        assert part in text
    assert remaining_share(SUMMARY) == pytest.approx((757 - 45) / (2701 - 45))
    assert f"no better {METRIC} in the last 3 evaluations" in table_text(replace(SUMMARY, reason="plateau"))
    assert "interrupted" in table_text(replace(SUMMARY, reason="interrupted", resumed_at_kimg=51.2))


@pytest.mark.parametrize("given", [False, True])
def test_what_is_worse_than_what_a_run_began_with_is_called_so(given: bool) -> None:
    start = "as given" if given else "untrained"
    first = evaluated(0, 2210.0, best=None, best_kimg=None, improved=False, untrained=2210.0, given=given)
    assert formatting.evaluation(first) == f"{METRIC} 2,210 ({start})"
    worse = evaluated(10, 2447.0, untrained=2210.0, given=given)
    assert formatting.evaluation(worse) == f"{METRIC} 2,447 (best so far, worse than {start})"
    later = replace(worse, value=2500.0, improved=False, without_improvement=1)
    assert f"(best 2,447 at 1 kimg, worse than {start}, 1 of 5 evaluations" in formatting.evaluation(later)
    better = evaluated(10, 2100.0, untrained=2210.0, given=given)
    assert formatting.evaluation(better) == f"{METRIC} 2,100 (best so far)"
    higher = evaluated(10, 0.2, untrained=0.3, given=given, higher_is_better=True)
    assert "worse than" in formatting.evaluation(higher)
    assert "worse than" not in formatting.evaluation(replace(higher, best=0.4))
    text = table_text(replace(SUMMARY, best=2997.0, given=given))
    assert re.search(rf"{METRIC} {start} +│ 2,701 ", text)
    assert f"2,997 at 90 kimg, worse than {start}" in text
    assert f"111.1 %, worse than {start} (0 % = real data, 100 % = {start})" in text


def test_the_whole_time_of_a_command_is_told() -> None:
    """Of 62 seconds 27 were the session's, and 3 came after it."""
    session = {"start": 1.0, "training": 20.0, "evaluation": 6.0, "total": 27.0}
    outcome = Outcome(replace(SUMMARY, seconds=session), 0, finished=159.0)
    timed = outcome.timed(100.0, 162.0)
    assert timed is not None
    assert timed.seconds == {"start": 33.0, "training": 20.0, "evaluation": 6.0, "end": 3.0, "total": 62.0}
    text = table_text(timed)
    for part in ("total 1:02", "start 0:33 (53%)", "training 0:20 (32%)", "end 0:03 (5%)"):
        assert part in text
    lost = replace(outcome, sessions=2).timed(100.0, 162.0)
    assert lost is not None
    assert lost.seconds["start and lost sessions"] == 33.0
    assert Outcome(None, 143).timed(100.0, 162.0) is None
    kept = replace(outcome, summary=replace(SUMMARY, seconds=session, step_seconds=20.0)).timed(100.0, 162.0)
    assert kept is not None
    assert kept.goodput == round(20 / 62, 4)
    assert "32.3 % of the time in steps that were kept" in table_text(kept)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("s3://runs/a: worker 1 died"), "s3://runs/a: worker 1 died"),
        (ZeroDivisionError("by zero"), r"ZeroDivisionError: by zero \(test_report\.py, line \d+\)"),
    ],
)
def test_a_run_that_ends_by_an_error_says_so_in_its_summary(error: Exception, text: str, remote: Storage) -> None:
    def fail() -> None:
        with recorded_failure(remote, lambda: [Attempt(2, 0.0, "worker 1: its process died")]):
            raise error

    with pytest.raises(type(error)):
        fail()
    assert not remote.exists("summary.json"), "it has not begun"
    remote.write_bytes("config.yaml", b"seed: 1")
    with pytest.raises(type(error)):
        fail()
    found = json.loads(remote.read_bytes("summary.json"))
    assert found["reason"] == "error"
    assert re.fullmatch(text, found["error"])
    assert found["attempts"] == [{"workers": 2, "kimg": 0.0, "failure": "worker 1: its process died"}]
    assert read_summary(remote) == found


def test_a_storage_that_is_away_is_not_asked_again(remote: Storage) -> None:
    remote.write_bytes("config.yaml", b"seed: 1")
    with pytest.raises(UnavailableError), recorded_failure(remote):
        raise UnavailableError("away")
    assert not remote.exists("summary.json")


def test_run_and_session_are_told_apart_after_a_resume() -> None:
    resumed = replace(SUMMARY, resumed_at_kimg=50.0, run_seconds=600.0)
    text = table_text(resumed)
    assert "all sessions 10:00" in text
    assert "this session 4:00" in text
    assert "all sessions" not in table_text(replace(resumed, run_seconds=None))


def test_a_busy_machine_is_said_at_the_start() -> None:
    busy = formatting.workers(replace(STARTED, crowding_load=6.25))
    assert busy.startswith("2 workers on cpu, 1 thread each (the machine is busy, load 6.2: scale.threads=1 may be")
    assert "busy" not in formatting.workers(STARTED)


def test_a_session_that_trains_nothing_says_so() -> None:
    text = table_text(replace(SUMMARY, resumed_at_kimg=SUMMARY.kimg, images_per_second=0.0))
    assert "100 kimg in 782 steps, 2 workers, nothing in this session" in text
    assert "images/s" not in text


def test_a_distance_that_is_not_of_the_end_is_not_called_final() -> None:
    text = table_text(replace(SUMMARY, reason="interrupted", kimg=104.2))
    assert "final" not in text
    assert f"{METRIC} latest" in text
    assert "760.0 at 100 kimg, none since" in text


# What an earlier session ended with, and whether it stays where the next trains nothing.
ENDS = {
    "the same end": (SUMMARY, True),
    "another reason": (replace(SUMMARY, reason="interrupted"), False),
    "another measure": (replace(SUMMARY, metric="recall_lite0_2k"), False),
    "a later end, of which the checkpoint is lost": (replace(SUMMARY, kimg=120.0), False),
    "none": (None, False),
}


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize("end", ENDS)
def test_the_summary_of_the_same_end_stays(end: str, where: str, tmp_path: Path, remote: Storage) -> None:
    storage = remote if where == "remote" else Storage.open(str(tmp_path))
    earlier, stays = ENDS[end]
    if earlier is not None:
        with RunFolder(storage, None) as folder:
            folder.event(RunFinished(earlier))
    again = replace(SUMMARY, resumed_at_kimg=SUMMARY.kimg, images_per_second=0.0)
    with RunFolder(storage, SUMMARY.steps) as folder:
        folder.event(RunFinished(again))
    found = json.loads(storage.read_bytes("summary.json"))
    assert found == (earlier if stays and earlier is not None else again).as_dict()


def test_what_was_trained_again_to_the_same_end_is_told(tmp_path: Path) -> None:
    for session in (SUMMARY, replace(SUMMARY, resumed_at_kimg=50.0)):
        with RunFolder(Storage.open(str(tmp_path)), 400) as folder:
            folder.event(RunFinished(session))
    assert json.loads((tmp_path / "summary.json").read_text())["resumed_at_kimg"] == 50.0


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"x"', b"\xff"])
def test_a_damaged_summary_is_replaced(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with RunFolder(Storage.open(str(tmp_path)), SUMMARY.steps) as folder:
        folder.event(RunFinished(replace(SUMMARY, resumed_at_kimg=SUMMARY.kimg)))
    assert json.loads((tmp_path / "summary.json").read_text())["kimg"] == SUMMARY.kimg


def test_curves_of_an_untrained_generator_have_no_best(tmp_path: Path) -> None:
    with RunFolder(Storage.open(str(tmp_path)), None) as folder:
        folder.event(evaluated(0, 2701.0, best=None, best_kimg=None, improved=False))
        folder.event(RunFinished(replace(SUMMARY, best=None, best_kimg=None)))
    assert (tmp_path / "curves.png").exists()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert f"distance/{METRIC}_best" not in board.Tags()["scalars"]


def test_the_summary_counts_samples_that_were_passed_over() -> None:
    assert "bad samples" not in table_text(SUMMARY)
    for count, shown in ((0, "0 skipped"), (1200, "1,200 skipped")):
        assert re.search(
            rf"bad samples +│ {shown} \(data\.bad_samples=skip\)", table_text(replace(SUMMARY, bad_samples=count))
        )


def test_a_summary_without_distances_shows_none() -> None:
    measured = ("untrained", "best", "best_kimg", "latest", "latest_kimg", "floor", "best_checkpoint")
    bare = replace(SUMMARY, **dict.fromkeys(measured))  # type: ignore[arg-type]
    assert METRIC not in table_text(bare)
    assert remaining_share(bare) is None
    assert remaining_share(replace(SUMMARY, untrained=45.0)) is None


def test_further_measures_are_written_shown_and_told(tmp_path: Path) -> None:
    more = {"kd_lite0_2k": 0.012345, "kd_lite0_2k_std": 0.001, "recall_lite0_2k": 0.5}
    event = evaluated(10, 900.0, more=more, seconds_of={"features": 17.0, "kernel": 0.5})
    assert formatting.evaluation(event) == f"{METRIC} 900.0 (best so far), kd_lite0_2k 0.0123, recall_lite0_2k 0.500"
    with RunFolder(Storage.open(str(tmp_path)), None) as folder:
        folder.event(event)
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert more.items() <= row.items()
    assert (row["seconds/features"], row["seconds/kernel"]) == (17.0, 0.5)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Scalars("measure/recall_lite0_2k")[0].value == 0.5


def test_a_long_word_over_a_column_takes_one_line() -> None:
    grid = image_grid(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))
    heights = [with_column_names(grid, [name]).height for name in ("a", 100 * "a")]
    assert heights[0] == heights[1]


def test_columns_and_rows_have_names() -> None:
    grid = image_grid(torch.zeros(6, 1, 64, 64, dtype=torch.uint8), columns=3)
    for named, band in (
        (with_column_names(grid, ["a", "a longer name of several words and more", "\x1b[2J"]), (slice(0, -134),)),
        (with_row_names(grid, ["a\n10", "x" * 1000]), (slice(None), slice(0, -200))),
    ):
        pixels = np.asarray(named)
        assert np.array_equal(pixels[-134:, -200:], np.asarray(grid)), "the grid is as it was"
        assert (pixels[band] < 100).any()
        assert pixels[band].shape[0] <= 134
        assert pixels.shape[1] < 400
