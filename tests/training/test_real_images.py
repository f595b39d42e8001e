"""`reals.png`: real images in the layout of the samples, made once, which nothing of a run depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conditional import NETWORKS as CONDITIONAL
from distgan.config.schema import Config
from distgan.storage.storage import UnavailableError
from distgan.tracking.run_folder import RunReporter
from distgan.training import fakes
from distgan.training.events import Event, Notice
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from runs import ALONE, assert_same_bits, newest, run, tiny_config
from toy_data import pack_numbered

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """300 images of three kinds, whose first pixels are their numbers."""
    folder = tmp_path_factory.mktemp("labeled")
    pack_numbered(folder, 300)
    return str(folder)


def conditional(data: str, steps: int) -> Config:
    return tiny_config("wgan-gp-faces", data, steps, *CONDITIONAL, "num_classes=3")


def train_in(folder: Path, config: Config) -> list[Event]:
    """Trains the run `run` in a folder as commands do; the events."""
    events: list[Event] = []
    spec = RunSpec(config, "run", str(folder))
    train(spec, ALONE, RunReporter(spec.run, events.append, lambda: False))
    return events


def test_each_column_has_distinct_images_of_its_class(data: str, tmp_path: Path) -> None:
    _, recorder = run(conditional(data, 1), str(tmp_path))
    (reals,) = recorder.reals
    assert reals.shape == recorder.grids[0].shape
    numbers = (reals[:, 0, 0, 0].long() * 256 + reals[:, 0, 0, 1]).tolist()
    assert len(set(numbers)) == len(numbers) == 48
    assert [number % 3 for number in numbers] == [0, 1, 2] * 16
    assert recorder.names == [f"kind {number}" for number in (0, 1, 2, 0, 1, 2)]


def test_without_labels_they_are_of_all(data: str, tmp_path: Path) -> None:
    _, recorder = run(tiny_config("quickstart", data, 1), str(tmp_path))
    (reals,) = recorder.reals
    assert reals.shape == (64, 1, 16, 16)
    assert len(torch.unique(reals.flatten(1), dim=0)) == 64
    assert list(recorder.names) == []


def test_the_picture_is_made_once(data: str, tmp_path: Path) -> None:
    train_in(tmp_path, conditional(data, 1))
    with Image.open(tmp_path / "run" / "reals.png") as reals:
        size = reals.size
        (grid,) = (tmp_path / "run" / "samples").iterdir()
        with Image.open(grid) as samples:
            assert samples.size == size
            names = np.asarray(samples)[: size[1] - (8 * 66 + 2)]
            assert np.array_equal(names, np.asarray(reals)[: len(names)])
            assert (names < 100).any(), "written"
    (tmp_path / "run" / "reals.png").unlink()
    train_in(tmp_path, conditional(data, 2))
    assert not (tmp_path / "run" / "reals.png").exists(), "a resume leaves it alone"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), UnavailableError("the store is away")])
def test_a_failure_is_told_and_changes_nothing(
    data: str, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_in(tmp_path / "with", conditional(data, 3))

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(fakes, "read_samples", fail)
    events = train_in(tmp_path / "without", conditional(data, 3))
    assert not (tmp_path / "without" / "run" / "reals.png").exists()
    (told,) = [event.text for event in events if isinstance(event, Notice)]
    assert told.startswith("no picture of real images: ")
    assert str(error) in told
    assert_same_bits(newest(str(tmp_path / "with")), newest(str(tmp_path / "without")))
