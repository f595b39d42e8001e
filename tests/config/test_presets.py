"""Each preset trains: two steps at small widths in float64, whose losses are those of the golden file.

A preset that the file does not have yet is only trained. `PYTHONPATH=tests/helpers python tests/config/test_presets.py`
writes the file: for a new preset, and after an intended change of the mathematics.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from command_line import Cli, one_line
from distgan.config.load import load_config, preset_names, preset_text
from distgan.config.optimizer import AdamConfig, RMSPropConfig
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.search.space_files import default_entries
from distgan.training.inputs import RealBatch
from distgan.training.networks import build_networks, build_objective, check_combination
from distgan.training.optimizers import build_optimizers
from distgan.training.progress import Progress
from distgan.training.step import Step
from layer_table import parameters, running_statistics
from shrunken import shrunken

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

GOLDEN = Path(__file__).parent / "preset_losses.json"
STEPS = 2
# Trainable parameters and running statistics of both networks, as the sources count them.
COUNTS = {
    "dcgan-bricks": ((3_574_656, 1_920), (2_763_520, 1_792)),
    "wgan-bricks": ((3_574_656, 1_920), (2_763_520, 1_792)),
    "wgan-gp-faces": ((3_806_083, 1_920), (2_764_737, 0)),
    "cgan-faces": ((728_963, 896), (662_977, 0)),
    "sagan-faces128": ((3_856_868, 992), (2_801_202, 0)),
}


def losses(preset: str) -> list[dict[str, float]]:
    """The terms of each of the first steps, on noise in place of images."""
    config, distributed = shrunken(preset), Distributed(0, 1, torch.device("cpu"))
    networks = build_networks(config, distributed.device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    objective = build_objective(config)
    step = Step(config, networks, objective, optimizers, distributed)
    random, progress = torch.Generator().manual_seed(0), Progress()

    def next_batch() -> RealBatch:
        count = config.training.batch_size // config.scale.groups
        shape = (count, config.channels, config.image_size, config.image_size)
        return [
            Group(
                torch.randint(0, 256, shape, dtype=torch.uint8, generator=random),
                torch.randint(config.num_classes or 1, (count,), generator=random),
            )
            for _ in range(config.scale.groups)
        ]

    rows = []
    for _ in range(STEPS):
        terms = step.run(next_batch, progress.discriminator_updates, progress.step).values
        rows.append({name: float(value) for name, value in sorted(terms.items())})
        progress.advance(config, step.batches_per_step)
    return rows


@pytest.mark.parametrize("preset", preset_names())
def test_the_first_losses_are_the_golden_ones(preset: str) -> None:
    found = losses(preset)
    wanted = json.loads(GOLDEN.read_text()).get(preset, found)
    assert len(found) == len(wanted) == STEPS
    assert all(math.isfinite(value) for row in found for value in row.values())
    for found_row, wanted_row in zip(found, wanted, strict=True):
        assert found_row == pytest.approx(wanted_row, rel=1e-7, abs=1e-9)


def test_the_golden_file_has_no_other_presets() -> None:
    assert json.loads(GOLDEN.read_text()).keys() <= set(preset_names())


@pytest.mark.parametrize("preset", COUNTS)
def test_the_networks_are_as_large_as_the_sources(preset: str) -> None:
    networks = build_networks(load_config(preset), torch.device("meta"))
    for network, counts in zip((networks.generator, networks.discriminator), COUNTS[preset], strict=True):
        assert (parameters(network), running_statistics(network)) == counts


@pytest.mark.parametrize("preset", preset_names())
def test_the_parts_of_a_preset_go_together(preset: str) -> None:
    config = load_config(preset)
    check_combination(config, build_networks(config, torch.device("meta")), build_objective(config))


# Learning rates, betas (None for RMSProp), batch, latent, critic steps, thousands of images: the sources' numbers,
# but for the budgets of cgan-fashion and sagan-cifar, which train their source's recipe on other data.
RECIPES = {
    "dcgan-cifar": ((2e-4, 2e-4), (0.5, 0.999), 128, 100, 1, 5000),
    "wgan-bricks": ((5e-5, 5e-5), None, 64, 100, 5, 12_000),
    "cgan-faces": ((5e-5, 5e-5), (0.5, 0.9), 128, 32, 3, 2000 * 3 * 0.128),
    "cgan-fashion": ((5e-5, 5e-5), (0.5, 0.9), 128, 32, 3, 3000),
    "sagan-faces128": ((1e-4, 4e-4), (0.0, 0.9), 64, 128, 1, 600 * 64),
    "sagan-cifar": ((1e-4, 4e-4), (0.0, 0.9), 64, 128, 1, 200 * 64),
    "sngan-cifar": ((2e-4, 2e-4), (0.0, 0.9), 64, 128, 5, 50 * 5 * 64),
    "wgan-gp-cifar": ((2e-4, 2e-4), (0.0, 0.9), 64, 128, 5, 100 * 5 * 64),
}


@pytest.mark.parametrize("preset", RECIPES)
def test_a_preset_is_the_sources_recipe(preset: str) -> None:
    config = load_config(preset)
    rates, betas, batch_size, latent_dim, critic_steps, kimg = RECIPES[preset]
    both = (config.optimizer.generator, config.optimizer.discriminator)
    assert tuple(optimizer.lr for optimizer in both) == rates
    for optimizer in both:
        if betas is None:
            assert isinstance(optimizer, RMSPropConfig)
        else:
            assert isinstance(optimizer, AdamConfig)
            assert (optimizer.beta1, optimizer.beta2) == betas
    assert (config.training.batch_size, config.latent_dim) == (batch_size, latent_dim)
    assert (config.objective.critic_steps, config.training.kimg) == (critic_steps, pytest.approx(kimg))


# A preset is one file.


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a copy of a preset, in a copy of their folder."""
    text = preset_text("quickstart")
    for name in preset_names():
        (tmp_path / f"{name}.yaml").write_text(preset_text(name))
    (tmp_path / "copied.yaml").write_text(text)
    monkeypatch.setattr("distgan.config.load.PRESETS", tmp_path)
    return "copied"


def test_a_copied_file_is_a_preset(copied: str, cli: Cli) -> None:
    assert copied in preset_names()
    assert load_config(copied) == load_config("quickstart").model_copy(update={"preset": copied})
    assert default_entries(copied) == default_entries("quickstart")
    assert cli("train", copied, "--dry-run").code == 0
    assert "unknown preset 'copid'; did you mean 'copied'?" in one_line(cli("train", "copid"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_copied_file_breaks_no_test(tmp_path: Path) -> None:
    """In a copy of the repository: a file more in the folder of presets, and the tests that enumerate them.

    Of those that take one preset each, that of the copy.
    """
    root = Path(__file__).parents[2]
    for folder in ("distgan", "tests", "benchmarks", "cluster", "docs", "examples"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in root.glob("*.*"):
        if file.is_file():
            shutil.copy(file, tmp_path)
    presets = tmp_path / "distgan" / "config" / "presets"
    shutil.copy(presets / "wgan-gp-cifar.yaml", presets / "copied.yaml")
    files = [
        str(path) for path in sorted((tmp_path / "tests").rglob("test_*.py")) if "preset_names(" in path.read_text()
    ]
    others = " or ".join(preset_names())
    chosen = ["-m", "not slow and not ray", "-k", f"copied or (preset and not ({others}))"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-x", "-p", "no:cacheprovider", *files, *chosen],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "copied" in done.stdout


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.write_text(json.dumps({preset: losses(preset) for preset in preset_names()}, indent=1) + "\n")
