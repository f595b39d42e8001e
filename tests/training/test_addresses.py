"""Addresses that strangers name, in checkpoints, records of searches and configurations at URLs."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from command_line import Cli, one_line
from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.inference.evaluation_plan import EvaluationOptions, plan_evaluation
from distgan.search.ranking import find_winner
from distgan.search.record import SearchRecord
from distgan.training.manifest import with_checksum
from distgan.training.run_spec import addresses_elsewhere, read_configuration
from runs import run, tiny_config
from search_records import make_plan, make_record, make_trial

pytestmark = pytest.mark.timeout(60)


class Listener:
    """A port that somebody may connect to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/data"

    def contacted(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    run(tiny_config("quickstart", data, 1), str(storage))
    return storage / "run"


def strangers_run(trained: Path, folder: Path, **keys: str | None) -> str:
    """A copy of a run whose configuration says something else of `data__url` and the like."""
    copy = shutil.copytree(trained, folder / "stranger")
    for manifest in copy.glob("checkpoints/*/manifest.json"):
        content = json.loads(manifest.read_text())
        for key, value in keys.items():
            section, _, name = key.partition("__")
            content["config"][section][name] = value
        manifest.write_text(json.dumps(with_checksum(content)))
    return str(copy)


def test_data_that_a_checkpoint_names_elsewhere_are_asked_for_only_with_a_flag(
    trained: Path, data: str, cli: Cli, tmp_path: Path, listener: Listener
) -> None:
    source = strangers_run(trained, tmp_path, data__url=listener.url)
    told = one_line(cli("evaluate", source))
    assert f"reads from other hosts than its own (data.url='{listener.url}')" in told
    assert told.endswith("name them with --data URL, or add --trust-addresses")
    assert not listener.contacted()
    assert cli("sample", source, "--count", "1", "--out", "x.png").code == 0
    assert cli("evaluate", source, "--data", data).code == 0
    assert not listener.contacted()
    taker = threading.Thread(target=_answer_one, args=(listener,), daemon=True)
    taker.start()
    one_line(cli("evaluate", source, "--trust-addresses"))
    taker.join(30)
    assert not taker.is_alive(), "with the flag it is asked"


def _answer_one(listener: Listener) -> None:
    """Closes the connections that come, and ends with the first."""
    listener._socket.settimeout(25)
    listener._socket.accept()[0].close()
    listener._socket.close()


@pytest.mark.parametrize(
    ("keys", "way"),
    [
        ({"data__url": "http://169.254.169.254/latest"}, "--data URL"),
        ({"data__url": "s3://strangers/bricks"}, "--data URL"),
        ({"data__url": "https://10.0.0.1/bricks"}, "--data URL"),
        ({"evaluation__statistics": "http://169.254.169.254/s.npz"}, "--statistics FILE"),
        (
            {"evaluation__extractor": "fid", "evaluation__weights": "http://169.254.169.254/w.pth"},
            "DISTGAN_FID_WEIGHTS",
        ),
    ],
)
def test_every_address_counts_that_would_be_contacted(
    keys: dict[str, str], way: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTGAN_FID_WEIGHTS", raising=False)
    source = strangers_run(trained, tmp_path, **keys)
    with pytest.raises(UserError, match=f"name them with {way}, or add --trust-addresses$"):
        plan_evaluation(source, EvaluationOptions())


def test_weights_that_a_run_names_are_of_its_own_extractor(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another come from their environment variable, which goes before the run's."""
    keys = {"evaluation__extractor": "fid", "evaluation__weights": "http://169.254.169.254/w.pth"}
    source = strangers_run(trained, tmp_path, **keys)
    with pytest.raises(UserError, match=r"or DISTGAN_DINOV2_WEIGHTS to its path or URL$"):
        plan_evaluation(source, EvaluationOptions(metrics="fd_dinov2_s14"))
    for extractor, variable in (("fd_dinov2_s14", "DISTGAN_DINOV2_WEIGHTS"), ("fid", "DISTGAN_FID_WEIGHTS")):
        monkeypatch.setenv(variable, f"/{variable}.pth")
        found = plan_evaluation(source, EvaluationOptions(metrics=extractor)).evaluation
        assert (found.extractor, found.weights) == (extractor, f"/{variable}.pth")


@pytest.mark.parametrize(
    ("url", "source", "elsewhere"),
    [
        ("bricks", "runs/first", False),
        ("/data/bricks", "s3://runs/first", False),
        ("s3://data/bricks", "s3://runs/first", False),  # the host is that of the user's own environment
        ("s3a://data/bricks", "s3://runs/first", False),
        ("http://lab/bricks", "http://lab/runs/first", False),
        ("s3://data/bricks", "runs/first", True),
        ("http://lab:8080/bricks", "http://lab/runs/first", True),
        ("https://lab/bricks", "http://lab/runs/first", True),
        ("http://169.254.169.254/bricks", "s3://runs/first", True),
        ("memory://data/bricks", "s3://runs/first", True),
    ],
)
def test_what_is_elsewhere(url: str, source: str, elsewhere: bool) -> None:
    config = load_config("quickstart", [f"data.url={url}"])
    assert addresses_elsewhere(config, source) == ({"data.url": url} if elsewhere else {})


def test_a_searchs_record_is_no_word_of_the_user(trained: Path, tmp_path: Path, listener: Listener) -> None:
    plan = make_plan()
    plan.config["data"]["url"] = listener.url
    trial = make_trial(plan, 0, state="budget", kimg=20.0, curve=[(20.0, 1.0)])
    record: SearchRecord = make_record([trial], plan)
    folder = tmp_path / "search"
    shutil.copytree(trained, folder / "trials" / trial.name)
    (folder / "search.json").write_text(record.model_dump_json())
    with pytest.raises(UserError, match=r"data\.url='http://127.*give them as KEY=VALUE$"):
        find_winner(str(folder), ["training.kimg=300"])
    assert find_winner(str(folder), ["data.url=/data/cifar"]).config.data.url == "/data/cifar"
    assert find_winner(str(folder), [f"data.url={listener.url}"]).config.data.url == listener.url
    assert not listener.contacted()


def test_a_configuration_at_a_url_is_no_word_of_the_user(tmp_path: Path, listener: Listener) -> None:
    (tmp_path / "config.yaml").write_text(f"data:\n  url: {listener.url}\n")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(UserError, match="give them as KEY=VALUE, or copy the file here"):
            read_configuration(f"{here}/config.yaml")
        assert read_configuration(f"{here}/config.yaml", ["data={url: bricks}"]).data.url == "bricks"
        (tmp_path / "config.yaml").write_text(f"data:\n  url: {here}/bricks\n")
        assert read_configuration(f"{here}/config.yaml").data.url == f"{here}/bricks"
        server.shutdown()
    assert not listener.contacted()
