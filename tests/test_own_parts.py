"""The example of a network and an objective of one's own: as its README runs it, small, and what it is made of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distgan.config.load import load_config
from distgan.training.draws import Draws
from distgan.training.networks import build_networks, build_objective
from processes import TINY
from runs import pack_bricks

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
    draws = Draws(0, 0, 0, torch.device("cpu"), torch.float32)
    assert objective.critic_loss(real, fake, draws).item() == pytest.approx((1 + (0.25 + 1) / 2) / 2)
    assert objective.generator_loss(fake).item() == pytest.approx((1.5**2 + 3**2) / 2)


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
