"""The table of objectives: stacked pictures, the modes that are counted in them, and the figures of a run."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.objectives import run_figures
from benchmarks.stacked import MODES, ModeCounter, StackedSource
from command_line import Cli
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.idx import IdxSource
from distgan.search.record import Trial
from distgan.storage.storage import Storage
from runs import TINY

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

SIZE, EACH = 16, 40


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IDX files of ten classes: a noisy square, whose place tells the class."""
    random = np.random.default_rng(0)
    labels = np.arange(10 * EACH, dtype=np.uint8) % 10
    images = random.integers(0, 60, (len(labels), SIZE, SIZE), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = 8 * (label % 2), 3 * (label // 2)
        image[top : top + 8, left : left + 4] = 255
    folder = tmp_path_factory.mktemp("squares")
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, *images.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, len(labels)) + labels.tobytes())
    return folder


@pytest.fixture(scope="module")
def counter(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> ModeCounter:
    folder = tmp_path_factory.mktemp("gray")
    pack(IdxSource(str(squares)), Storage.open(str(folder)), PackOptions(SIZE, 1, processes=1))
    return ModeCounter(str(folder), SIZE)


def test_the_channels_are_pictures_of_the_files_drawn_by_seed(squares: Path) -> None:
    pictures = IdxSource(str(squares))
    known = {pictures[number][0].tobytes() for number in range(len(pictures))}
    source, again, other = (StackedSource(str(squares), count=20, seed=seed) for seed in (3, 3, 4))
    assert len(source) == 20
    image, label = source[7]
    assert (image.shape, image.dtype, label) == ((SIZE, SIZE, 3), np.uint8, -1)
    assert all(image[:, :, channel].tobytes() in known for channel in range(3))
    assert (again[7][0] == image).all()
    assert any((other[number][0] != source[number][0]).any() for number in range(20))


@pytest.mark.slow
def test_modes_are_counted_by_the_classes_of_the_channels(squares: Path, counter: ModeCounter) -> None:
    source = StackedSource(str(squares), count=4000)
    images = torch.from_numpy(np.stack([source[number][0].transpose(2, 0, 1) for number in range(len(source))]))
    drawn = counter.of_images(images)
    # Of 4,000 equally likely draws about e^-4 of all modes stay unseen.
    assert 0.96 * MODES < drawn.modes < 0.995 * MODES
    assert 0 < drawn.divergence < 0.2
    one = counter.of_images(images[:1].expand(50, -1, -1, -1))
    assert (one.modes, one.divergence) == (1, pytest.approx(math.log(MODES)))


@pytest.mark.slow
def test_the_figures_are_those_at_the_best_distance(data: str, tmp_path: Path, cli: Cli) -> None:
    small = [*TINY, "training.kimg=0.048", "evaluation.every_kimg=0.016", "evaluation.metrics=[precision, recall]"]
    storage = ("--no-ray", "--storage", str(tmp_path), "--name", "one")
    assert cli("train", "quickstart", f"data.url={data}", *small, *storage).code == 0
    lines = map(json.loads, (tmp_path / "one" / "metrics.jsonl").read_text().splitlines())
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    assert len(evaluations) == 3
    curve = [(line["kimg"], line["value"]) for line in evaluations]
    trial = Trial(number=0, draw={}, overrides={}, seed=0, curve=curve, seconds=90)
    found = run_figures(tmp_path / "one", trial, None, 0)
    best = min(evaluations, key=lambda line: line["value"])
    wanted = {"fd_lite0": best["value"], "best at kimg": best["kimg"], "minutes": 1.5}
    wanted |= {key.partition("_")[0]: value for key, value in best.items() if key.startswith(("precision", "recall"))}
    assert found == wanted
    assert len(found) == 5
