"""The Python API: light to import, typed, one call for what a command does; never ends the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import numpy as np
import pytest

import distgan
from distgan.config.load import load_config
from distgan.search import planning
from distgan.search.plan import SearchOptions
from distgan.search.space_files import default_entries, read_entries
from distgan.tracking.console import Display
from distgan.training.events import Event, StepMetrics
from runs import TINY, pack_bricks, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

G = "optimizer.generator.lr"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pack_bricks(tmp_path_factory.mktemp("data") / "bricks", samples=64)


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> distgan.TrainResult:
    """A run of three steps in this process."""
    config = tiny_config("quickstart", data, 3)
    return distgan.train(config, name="first", storage=tmp_path_factory.mktemp("runs"))


def test_importing_the_package_is_light() -> None:
    script = """
import sys
import distgan
heavy = {"torch", "ray", "numpy", "pydantic", "rich"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
config = distgan.load_config("quickstart", {"seed": 3})
assert config.seed == 3 and "ray" not in sys.modules
for name in distgan.__all__:
    assert getattr(distgan, name) is not None and name in dir(distgan)
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], timeout=50, check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'distgan' has no attribute 'tarin'"):
        distgan.tarin  # type: ignore[attr-defined]  # noqa: B018


def test_ways_to_write_a_configuration() -> None:
    wanted = load_config("quickstart", [f"{G}=1e-4", "training.kimg=60", "seed=1", "data.url=bricks"])
    texts = [f"{G}=1e-4", "training.kimg=60", "seed=1", "data.url=bricks"]
    config = distgan.load_config("quickstart", texts)
    assert_type(config, distgan.Config)
    assert config == wanted
    assert distgan.load_config("quickstart", {G: 1e-4}, training={"kimg": 60}, seed=1, data={"url": "bricks"}) == wanted
    assert distgan.load_config(distgan.load_config("quickstart", texts[:2]), seed=1, data={"url": "bricks"}) == wanted
    nested = {"generator": {"lr": 1e-4}}
    assert distgan.load_config("quickstart", {G: 3e-4}, optimizer=nested).optimizer == wanted.optimizer


@pytest.mark.parametrize(
    ("overrides", "sections", "message"),
    [
        ({"training.kmg": 1}, {}, r"^preset quickstart: training\.kmg: unknown key; did you mean 'training\.kimg'\?$"),
        ({}, {"training": {"kimg": -1}}, r"training\.kimg=-1: allowed: number above 0"),
        ({"a..b": 1}, {}, r"override 'a\.\.b': write KEY=VALUE with a dotted key"),
        ({}, {"image_size": {"value": 1}}, r"override 'image_size\.value': 'image_size' is a value"),
    ],
)
def test_what_is_wrong_with_a_configuration(
    overrides: Mapping[str, object], sections: Mapping[str, object], message: str
) -> None:
    with pytest.raises(distgan.UserError, match=message):
        distgan.load_config("quickstart", overrides, **sections)


def test_a_run_trains_in_this_process_and_is_resumed(trained: distgan.TrainResult, data: str, tmp_path: Path) -> None:
    assert_type(trained.summary.steps, int)
    assert (trained.summary.steps, trained.summary.reason) == (3, "budget")
    assert json.loads((Path(trained.url) / "summary.json").read_text())["steps"] == 3
    storage = Path(trained.url).parent
    again = distgan.train(tiny_config("quickstart", data, 5), name="first", storage=storage)
    assert (again.url, again.summary.steps) == (trained.url, 5)
    with pytest.raises(distgan.UserError, match="image_size"):
        distgan.train(tiny_config("quickstart", data, 5, "image_size=32"), name="first", storage=storage)


def test_a_configuration_has_no_name(data: str) -> None:
    with pytest.raises(distgan.UserError, match="name=NAME"):
        distgan.train(tiny_config("quickstart", data, 1))


def test_more_workers_than_groups_are_an_error(data: str) -> None:
    with pytest.raises(distgan.UserError, match=r"scale\.workers=9 is more than scale\.groups=4"):
        distgan.train(tiny_config("quickstart", data, 1), name="many", workers=9)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_state_and_interrupts(
    data: str, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Display.event

    def stop(display: Display, event: Event) -> None:
        shown(display, event)
        if isinstance(event, StepMetrics):
            signal.raise_signal(number)

    monkeypatch.setattr(Display, "event", stop)
    config, handlers = tiny_config("quickstart", data, 50), [signal.getsignal(each) for each in (2, 15)]
    with pytest.raises(KeyboardInterrupt) as stopped:
        distgan.train(config, name="stopped", storage=tmp_path)
    assert isinstance(stopped.value, distgan.Interrupted)
    assert stopped.value.exit_code == 128 + number
    assert stopped.value.result.summary.reason == "interrupted"
    assert [signal.getsignal(each) for each in (2, 15)] == handlers
    monkeypatch.undo()
    config = tiny_config("quickstart", data, stopped.value.result.summary.steps + 1)
    assert distgan.train(config, name="stopped", storage=tmp_path).summary.resumed_at_kimg > 0


def test_a_run_in_another_thread(data: str, tmp_path: Path) -> None:
    found: list[distgan.TrainResult] = []
    config = tiny_config("quickstart", data, 1)
    thread = threading.Thread(target=lambda: found.append(distgan.train(config, name="thread", storage=tmp_path)))
    thread.start()
    thread.join(60)
    assert found[0].summary.steps == 1


def test_an_evaluation_of_a_run_and_of_arrays(
    trained: distgan.TrainResult, data: str, capfd: pytest.CaptureFixture[str]
) -> None:
    found = distgan.evaluate(trained.url, metrics=["fd_lite0", "kid"], samples=8)
    assert_type(found.metrics, Mapping[str, float])
    assert len(found.metrics) == 2
    document = found.as_dict()
    assert document["metrics"] == found.metrics
    assert (document["samples"], document["workers"]) == (8, 1)
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), np.uint8)
    assert next(iter(distgan.evaluate(noise, data=data).metrics.values())) > 0
    with pytest.raises(distgan.UserError, match="none: "):
        distgan.evaluate(f"{trained.url}-none")
    assert capfd.readouterr().out == ""


def test_what_a_search_is_given(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 4)
    space: dict[str, object] = {
        G: "loguniform(1e-5, 1e-3)",
        "latent_dim": "choice(8, 16)",
        "objective.label_noise": 0.125,
    }
    texts = [f"{key}={value}" for key, value in space.items()]

    def planned(source: str, **options: object) -> planning.SearchSpec:
        return planning.plan_search(SearchOptions(source, "search", str(tmp_path), **options))  # type: ignore[arg-type]

    of_config = planned("mine", config=config, space=space)
    by_name = planned("quickstart", overrides=[*TINY, f"data.url={data}", "training.kimg=0.064"], space=texts)
    assert of_config.record.plan == by_name.record.plan.model_copy(update={"source": "mine"})
    assert read_entries(["quickstart"]) == default_entries("quickstart")
    with pytest.raises(distgan.UserError, match="--space is missing"):
        distgan.tune(config, name="none", storage=tmp_path)
