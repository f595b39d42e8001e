"""The example of a network and an objective of one's own: as its README runs it, small, and what it is made of."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from distgan.config.load import load_config
from distgan.distributed import Distributed
from distgan.losses.context import Context
from distgan.losses.hinge import Hinge
from distgan.losses.penalties import Discriminator, Penalty
from distgan.tracking.console import Display
from distgan.training.events import StepMetrics
from distgan.training.networks import build_networks, build_objective
from gloo import run_workers
from processes import TINY
from runs import ALONE, Recorder, pack_bricks, run, tiny_config

pytestmark = pytest.mark.timeout(90)

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIGURATION = EXAMPLES / "own-parts.yaml"


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.mark.usefixtures("on_path")
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_the_generator_makes_every_size(size: int) -> None:
    config = load_config(str(CONFIGURATION), [f"image_size={size}", "generator.width=2", "channels=3"])
    generator = build_networks(config, torch.device("cpu")).generator
    images = generator(torch.randn(2, 64))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1


@pytest.mark.usefixtures("on_path")
def test_the_objective_is_that_of_least_squares() -> None:
    objective = build_objective(load_config(str(CONFIGURATION), ["objective.real=2"]))
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.5, -1.0])
    draws = Context(0, 0.0, 0, 0, torch.device("cpu"), torch.float32)
    assert objective.discriminator_loss(real, fake, draws).item() == pytest.approx((1 + (0.25 + 1) / 2) / 2)
    assert objective.generator_loss(fake).item() == pytest.approx((1.5**2 + 3**2) / 2)


class LazyR1(Hinge):
    """Takes the R1 penalty on every fourth update, and of the groups `spared` none."""

    penalized = True

    def __init__(self, *, spared: int = 0) -> None:
        super().__init__(r1_weight=40.0)
        self.spared = spared

    def penalty(self, critic: Discriminator, real: Tensor, fake: Tensor, draws: Context) -> Penalty | None:
        return None if draws.update % 4 or draws.group < self.spared else super().penalty(critic, real, fake, draws)


def train_lazily(distributed: Distributed, data: str, folder: str, log_every: int, spared: int) -> Recorder:
    """Six steps with a penalty on the first and the fifth."""
    file = Path(folder) / f"lazy-{distributed.rank}.yaml"
    objective = f"{{name: 'test_own_parts:LazyR1', spared: {spared}}}"
    file.write_text(f"discriminator: {{network: wgan_gp}}\nobjective: {objective}\n")
    changes = [f"training.log_every={log_every}", "training.precision=float64", "scale.groups=4", "health.stop=true"]
    name = f"run-{distributed.size}-{log_every}-{spared}"
    return run(tiny_config(str(file), data, 6, *changes), folder, name, distributed=distributed)[1]


def rows_of(distributed: Distributed, data: str, folder: str, log_every: int, spared: int) -> list[dict[str, float]]:
    return [event.terms for event in train_lazily(distributed, data, folder, log_every, spared).of(StepMetrics)]


@pytest.mark.parametrize("spared", [0, 3])
def test_a_lazy_penalty_is_in_the_metrics_where_it_was_taken(spared: int, data: str, tmp_path: Path) -> None:
    each = rows_of(ALONE, data, str(tmp_path), 1, spared)
    assert ["loss/penalty" in row for row in each] == [True, False, False, False, True, False]
    assert all(row["loss/discriminator"] == row["loss/adversarial"] for row in each if "loss/penalty" not in row)
    share = (4 - spared) / 4  # of the groups that have a penalty; its mean is over them
    for row in (each[0], each[4]):
        total = row["loss/adversarial"] + share * row["loss/penalty"]
        assert row["loss/discriminator"] == pytest.approx(total, rel=1e-12)
    windows = rows_of(ALONE, data, str(tmp_path), 2, spared)
    assert [row.get("loss/penalty") for row in windows] == [each[0]["loss/penalty"], None, each[4]["loss/penalty"]]
    for number, window in enumerate(windows):
        first, second = each[2 * number], each[2 * number + 1]
        mean = (first["loss/adversarial"] + second["loss/adversarial"]) / 2
        assert window["loss/adversarial"] == pytest.approx(mean, rel=1e-12)
    for found in run_workers(rows_of, 2, data, str(tmp_path), 2, spared)[:1]:
        assert [row.keys() for row in found] == [row.keys() for row in windows]
        for row, wanted in zip(found, windows, strict=True):
            assert row == pytest.approx(wanted, rel=1e-9)


def test_the_terminal_and_the_curves_do_without_a_penalty_that_is_absent(data: str, tmp_path: Path) -> None:
    shown = io.StringIO()
    seconds = itertools.count(step=10)
    with Display(Console(file=shown, width=200), clock=lambda: next(seconds)) as display:
        for event in train_lazily(ALONE, data, str(tmp_path), 2, 0).events:
            display.event(event)
    lines = [line for line in shown.getvalue().splitlines() if " images/s" in line]
    assert ["penalty" in line for line in lines] == [True, False, True]


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """Train and sample, in a folder that does not hold the module."""
    pack_bricks(tmp_path / "bricks", samples=128)

    def distgan(*arguments: str) -> str:
        command = [sys.executable, "-m", "distgan", *arguments]
        paths = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=80, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ["channels=1", "training.kimg=0.256", "evaluation.every_kimg=1", "scale.threads=1"]
    output = distgan("train", str(CONFIGURATION), "data.url=bricks", *TINY, *small, "--no-ray", "--name", "own")
    assert "image budget used up" in output
    assert "64 samples of step-" in distgan("sample", "runs/own", "--trust-code")
