"""Trackers that send a run to a tool or service: W&B offline, MLflow in a file, trackio by a stand-in, and failures."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from command_line import Cli, one_line
from distgan.config.load import dump_config
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.tracking import service
from distgan.tracking.run_folder import RunFolder
from distgan.tracking.service import Point, ServiceTracker
from distgan.tracking.tracker import TrackedRun
from distgan.training.events import RunStarted
from example_events import METRIC, evaluated, images, trained
from runs import pack_bricks, tiny_config

pytestmark = pytest.mark.timeout(90)

CONFIGURATION = "seed: 1\noptimizer: {generator: {lr: 0.0002}}\n"


def started(step: int = 0) -> RunStarted:
    return RunStarted(
        "toy",
        step > 0,
        step,
        step / 10,
        100.0,
        1,
        4,
        1,
        "cpu",
        16,
        1000,
        900,
        "file:///data",
        80,
        METRIC,
        CONFIGURATION,
    )


def sessions(storage: Storage, tracker: str, said: list[str]) -> None:
    """A session of 4 rows that is killed after its state of step 20, and one that resumes there.

    Of its two evaluations the second comes late.
    """
    for begin, steps, generator in ((0, (10, 20, 30, 40), 0.8), (20, (30, 40, 50), 0.5)):
        with RunFolder(storage, begin or None, said.append, trackers=[tracker]) as folder:
            folder.event(started(begin))
            for step in steps:
                folder.event(trained(step, generator))
                if step == 20:
                    folder.event(evaluated(20, 900.0, floor=45.0))
                    folder.samples(20, 2.0, images())
            if not begin:
                folder.event(evaluated(30, 800.0))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "runs" / "toy"))


# Real tools.


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


def records(data: bytes) -> Iterator[bytes]:
    """The records of a `.wandb` file, a log of LevelDB after 7 bytes: blocks of 32 KiB with pieces of records."""
    whole, at = b"", 7
    while at + 7 <= len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield whole
            whole = b""
        left = -at % 2**15
        at += left if left < 7 else 0


def wandb_records(folder: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    """The rows of the history of an offline run, and its other records."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    rows, others = [], []
    for data in records(file.read_bytes()):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
        else:
            others.append(record)
    return rows, others


def test_wandb_offline(storage: Storage, offline: None) -> None:
    """Both sessions are one run of W&B; the second sends what the first has not."""
    said: list[str] = []
    sessions(storage, "wandb", said)
    assert said == []
    folder = Path(storage.root)
    first, second = sorted((folder / "wandb").glob("offline-run-*"))
    identity = (folder / "wandb" / "id").read_text().strip()
    assert identity in first.name
    assert identity in second.name  # which ends in -1 where both begin within a second
    rows, others = wandb_records(first)
    places = [(row["_step"], row["progress/kimg"]) for row in rows]
    assert places == [(1000, 1), (2000, 2), (3000, 3), (4000, 4), (4001, 3)]
    assert rows[4][f"distance/{METRIC}"] == 800
    assert rows[1][f"distance/{METRIC}"] == 900
    assert rows[1][f"distance/{METRIC}_floor"] == 45
    assert rows[1]["samples._type"] == "image-file"
    assert len(list(first.glob("files/media/images/samples*.png"))) == 1
    (run,) = [record.run for record in others if record.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.project, run.run_id) == ("toy", "distgan", identity)
    assert {update.key: json.loads(update.value_json) for update in run.config.update}["seed"] == 1
    assert [(row["_step"], row["loss/generator"]) for row in wandb_records(second)[0]] == [(5000, 0.5)]


@pytest.mark.parametrize("store", ["file", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_mlflow(store: str, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of MLflow, each point once, also where no file says what has been sent."""
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/ml" if store == "file" else f"sqlite:///{tmp_path}/ml.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    said: list[str] = []
    sessions(storage, "mlflow", said)
    assert said == []
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("distgan")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("toy", "FINISHED")
    assert run.data.params == {"seed": "1", "optimizer.generator.lr": "0.0002"}
    history = sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, "loss/generator"))
    assert history == [(1000, 0.8), (2000, 0.8), (3000, 0.8), (4000, 0.8), (5000, 0.5)]
    assert [each.value for each in client.get_metric_history(run.info.run_id, f"distance/{METRIC}_floor")] == [45]
    pictures = client.list_artifacts(run.info.run_id, "images")
    assert any(each.path.startswith("images/samples") for each in pictures)


def test_an_attempt_of_mlflow_that_fails_leaves_no_second_run(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/ml")
    monkeypatch.setattr(service, "_RETRY_S", 0.01)
    log_batch, failures = MlflowClient.log_batch, iter([ConnectionError("no route to host")])

    def log(*arguments: Any, **options: Any) -> None:
        for error in failures:
            raise error
        log_batch(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", log)
    said: list[str] = []
    with RunFolder(storage, None, said.append, trackers=["mlflow"]) as folder:
        folder.event(started())
        while not said:
            folder.flush()
        folder.event(trained(10))
    client = MlflowClient(f"file://{tmp_path}/ml")
    experiment = client.get_experiment_by_name("distgan")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["progress/kimg"] == 1


def test_trackio_by_a_stand_in(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package needs an older Pillow than distgan's others: a module with the functions that are called."""
    begun: list[dict[str, Any]] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    ended: list[str] = []

    def init(**arguments: Any) -> SimpleNamespace:
        begun.append(arguments)
        return SimpleNamespace(
            log=lambda values, step: rows.append((step, values)), finish=lambda: ended.append(arguments["name"])
        )

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init, Image=lambda picture: picture, __spec__=1))
    said: list[str] = []
    sessions(storage, "trackio", said)
    assert said == []
    assert [each["name"] for each in begun] == ended
    assert len(set(ended)) == 1
    assert begun[0]["config"]["seed"] == 1
    assert [step for step, values in rows if "loss/generator" in values] == [1000, 2000, 3000, 4000, 5000]
    assert [values["samples"].size for _, values in rows if "samples" in values] == [(200, 134)]


# Failures.


class Service:
    """What `Sender` sends to: it may fail, and waits while its gate is closed."""

    def __init__(self) -> None:
        self.fails = False
        self.gate, self.waits = threading.Event(), threading.Event()
        self.gate.set()
        self.points: list[Point] = []

    def take(self, point: Point) -> None:
        self.waits.set()
        assert self.gate.wait(30)
        if self.fails:
            raise ConnectionError("no route to\nhost")
        self.points.append(point)

    @property
    def kimg(self) -> list[float]:
        return [point.kimg for point in self.points]


SERVICE = Service()


class Sender(ServiceTracker):
    name, title, package = "sender", "The service", "json"

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self.service = SERVICE

    def open(self, started: RunStarted, configuration: Mapping[str, Any]) -> int | None:
        return None

    def send(self, point: Point) -> None:
        self.service.take(point)


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Storage, list[str]], RunFolder]]:
    """Opens a folder with the tracker `Sender`; pauses between its attempts are short."""
    monkeypatch.setattr(sys.modules[__name__], "SERVICE", Service())
    monkeypatch.setattr(service, "_RETRY_S", 0.01)
    yield lambda storage, said: RunFolder(storage, None, said.append, trackers=[f"{__name__}:Sender"])
    SERVICE.gate.set()


def test_a_service_that_is_away_is_told_once_and_gets_all_points(storage: Storage, sender: Any) -> None:
    said: list[str] = []
    SERVICE.fails = True
    with sender(storage, said) as folder:
        folder.event(started())
        folder.event(trained(10))
        while not said:
            folder.flush()
        folder.event(trained(20))
        folder.flush()
        SERVICE.fails = False
        folder.event(trained(30))
    (line,) = said
    assert "The service does not take the run (ConnectionError: no route to host)" in line
    assert line.endswith("; training continues without it")
    assert SERVICE.kimg == [1.0, 2.0, 3.0]


def test_a_service_that_hangs_blocks_nothing(storage: Storage, sender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a step nor, for long, the end of the run; memory is bounded."""
    monkeypatch.setattr(service, "CLOSE_S", 0.2)
    monkeypatch.setattr(service, "_MOST_POINTS", 5)
    said: list[str] = []
    SERVICE.gate.clear()
    folder = sender(storage, said)
    folder.event(started())
    for step in range(10, 110, 10):
        folder.event(trained(step))
    folder.flush()
    assert said == []
    assert SERVICE.waits.wait(30)
    folder.close()
    (line,) = said
    assert "The service does not take the run (TimeoutError: 10 points are not sent)" in line


def test_what_a_tracker_lacks_is_one_line_before_the_training(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_bricks(tmp_path / "data", samples=80)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)

    def message(tracker: str, *more: str) -> str:
        (tmp_path / "run.yaml").write_text(
            dump_config(tiny_config("quickstart", "data", 1, f"tracking=[samples, {tracker}]"))
        )
        return one_line(cli("train", "run.yaml", "--no-ray", *more))

    monkeypatch.setitem(sys.modules, "trackio", None)
    for more in ((), ("--dry-run",)):
        told = message("trackio", *more)
        assert "tracking: trackio needs the package trackio: pip install 'distgan[trackio]'" in told
    assert "run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline" in message("wandb")
    assert "MLFLOW_TRACKING_URI is not set; set it to your server" in message("mlflow")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "login").write_text("machine api.wandb.ai login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "login"))
    from distgan.tracking.wandb import WandbTracker

    WandbTracker.check()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(UserError, match="not logged in"):
        WandbTracker.check()


def test_curves_go_to_the_service_at_the_end(storage: Storage, sender: Any) -> None:
    with sender(storage, []) as folder:
        folder.event(started())
        folder.event(trained(10))
        Image.new("RGB", (30, 20)).save(Path(storage.root) / "curves.png")
    assert [list(point.pictures) for point in SERVICE.points] == [[], ["curves"]]
    assert SERVICE.points[1].pictures["curves"].size == (30, 20)


def test_a_run_that_begins_anew_has_another_id(storage: Storage, sender: Any) -> None:
    """The service has points of the metrics that are dropped; else those of the new run would be missing there."""
    ids = []
    for place in (1, 2):
        with sender(storage, []) as folder:
            folder.event(started())
            folder.event(trained(10))
        ids.append((Path(storage.root) / "sender" / "id").read_text())
        assert SERVICE.kimg == [1.0] * place
    assert ids[0] != ids[1]
