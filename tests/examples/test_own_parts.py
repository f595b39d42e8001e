"""The examples of objectives and networks of one's own: as they say that they are run, small, and what they compute."""

from __future__ import annotations

import importlib
import io
import itertools
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.losses import Context, Discriminator, Objective, Penalty
from distgan.losses.hinge import Hinge
from distgan.tracking.console import Display
from distgan.training.events import StepMetrics
from distgan.training.inputs import RealBatch
from distgan.training.networks import build_networks, build_objective, layers_of
from distgan.training.step import Step
from gloo import run_workers
from processes import TINY
from runs import ALONE, BATCH, Recorder, assert_same_bits, newest, pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("one_thread", "on_path")]

EXAMPLES = Path(__file__).parents[2] / "examples"

# The example, the name of a run of its own, and metrics that its objective brings.
OWN = {"lazy_r1": "penalty/norm", "relativistic": "accuracy/fake", "small_network": "accuracy/real"}


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def arguments_of(example: str) -> list[str]:
    """What follows `distgan train` in the command of an example's docstring."""
    text = str(importlib.import_module(example).__doc__)
    words = shlex.split(text[text.index("distgan train") :].replace("\\\n", " "))
    return words[2:]


def config_of(example: str, data: str, steps: int, *changes: str) -> Config:
    """The configuration of an example's command, tiny, for so many steps."""
    preset, *arguments = arguments_of(example)
    given = [argument for argument in arguments[: arguments.index("--no-ray")] if not argument.startswith("data.url")]
    sizes = ["generator.width=4", "discriminator.width=4", "training.precision=float64"]
    return tiny_config(preset, data, steps, *given, *sizes, *changes)


@pytest.mark.parametrize("example", OWN)
def test_an_example_runs_as_it_says(example: str, data: str, tmp_path: Path) -> None:
    summary, recorder = run(config_of(example, data, 2), str(tmp_path))
    assert summary.steps == 2
    terms = recorder.of(StepMetrics)[0].terms
    assert OWN[example] in terms
    assert all(math.isfinite(value) for value in terms.values())


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """Train and sample, in a folder that does not hold the modules."""
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

    preset, *arguments = arguments_of("small_network")
    small = [*TINY, "channels=1", "training.kimg=0.256", "evaluation.every_kimg=1", "scale.threads=1"]
    options = arguments.index("--no-ray")
    output = distgan("train", preset, *arguments[:options], *small, *arguments[options:])
    assert "image budget reached" in output
    assert "64 samples of step-" in distgan("sample", "runs/small", "--trust-code")


# Networks.


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_the_networks_take_every_size(size: int) -> None:
    arguments = arguments_of("small_network")[2:4]
    sizes = [f"image_size={size}", "generator.width=2", "discriminator.width=2", "channels=3"]
    config = load_config("quickstart", [*arguments, *sizes])
    networks = build_networks(config, torch.device("cpu"))
    images = networks.generator(torch.randn(2, 64))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert networks.discriminator(images).shape == (2, 1, size // 4, size // 4)
    planned = build_networks(config, torch.device("meta"))
    rows = layers_of(planned.discriminator, config, "discriminator")
    assert rows[-1][1] == f"1x{size // 4}x{size // 4}"


def test_a_patch_sees_15_pixels() -> None:
    module = importlib.import_module("small_network")
    images = torch.zeros(1, 1, 64, 64, requires_grad=True)
    module.PatchDiscriminator(channels=1, width=4)(images)[0, 0, 8, 8].backward()
    assert images.grad is not None
    rows, columns = (images.grad[0, 0].abs().sum(dim).nonzero().flatten() for dim in (1, 0))
    assert (len(rows), len(columns)) == (15, 15)


# Objectives.


def objective_of(example: str, *changes: str) -> Objective:
    given = [argument for argument in arguments_of(example) if argument.startswith("objective")]
    return build_objective(load_config("quickstart", ["discriminator.network=wgan_gp", *given, *changes]))


def context(update: int = 0) -> Context:
    return Context(update, 0.0, 0, 0, torch.device("cpu"), torch.float64)


REAL, FAKE = torch.tensor([1.0, 3.0, -2.0]).double(), torch.tensor([0.5, -1.0, 4.0]).double()


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def slope_of(weight: Tensor) -> Discriminator:
    """A linear discriminator, whose gradient is `weight` everywhere."""
    return lambda images: images.flatten(1) @ weight


def test_the_lazy_objective_in_numbers() -> None:
    objective = objective_of("lazy_r1", "objective.every=4", "objective.r1_weight=3")
    loss = objective.discriminator_loss(REAL, FAKE, context())
    wanted = sum(map(softplus, (-1, -3, 2))) / 3 + sum(map(softplus, (0.5, -1, 4))) / 3
    assert loss.item() == pytest.approx(wanted)
    assert objective.generator_loss(FAKE, REAL[:0], context()).item() == pytest.approx(
        sum(map(softplus, (-0.5, 1, -4))) / 3
    )
    images, weight = torch.randn(3, 1, 2, 2).double(), torch.tensor([1.0, 0.0, -2.0, 0.0]).double()
    taken = [objective.penalty(slope_of(weight), images, -images, context(update)) for update in range(5)]
    assert [penalty is None for penalty in taken] == [False, True, True, True, False]
    assert taken[4] is not None
    assert taken[4].loss.item() == pytest.approx(4 * 3 / 2 * 5)
    assert taken[4].norm.item() == pytest.approx(math.sqrt(5))
    zeros = torch.zeros(2).double()
    assert objective.discriminator_loss(zeros, zeros, context()).item() == pytest.approx(objective.chance_loss)


def test_the_relativistic_objective_in_numbers() -> None:
    objective = objective_of("relativistic")
    real, fake = 2 / 3, 3.5 / 3  # mean logits
    loss = objective.discriminator_loss(REAL, FAKE, context())
    wanted = sum(softplus(fake - one) for one in (1, 3, -2)) + sum(softplus(one - real) for one in (0.5, -1, 4))
    assert loss.item() == pytest.approx(wanted / 3)
    loss = objective.generator_loss(FAKE, REAL, context())
    wanted = sum(softplus(real - one) for one in (0.5, -1, 4)) + sum(softplus(one - fake) for one in (1, 3, -2))
    assert loss.item() == pytest.approx(wanted / 3)
    moved = objective.generator_loss(FAKE + 7, REAL + 7, context())
    assert moved.item() == pytest.approx(loss.item())
    found = {name: value.item() for name, value in objective.accuracies(REAL, FAKE).items()}
    assert found == {"real": pytest.approx(1 / 3), "fake": pytest.approx(2 / 3)}
    zeros = torch.zeros(2).double()
    assert objective.discriminator_loss(zeros, zeros, context()).item() == pytest.approx(objective.chance_loss)


# Fresh real images for the generator's update.


def images_of_updates(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The network and the mean of the images of each update of a run."""
    seen: list[tuple[str, float]] = []

    def noting(update: Callable[..., Any], network: str) -> Callable[..., Any]:
        def noted(step: Step, batch: RealBatch, *arguments: int) -> Any:
            seen.append((network, torch.cat([part.images for part in batch]).double().mean().item()))
            return update(step, batch, *arguments)

        return noted

    with monkeypatch.context() as patch:
        for network in ("discriminator", "generator"):
            name = f"{network}_update"
            patch.setattr(Step, name, noting(getattr(Step, name), network))
        run(config, str(folder))
    return seen


@pytest.mark.parametrize("batches", ["fresh", "reuse"])
def test_the_generators_update_reads_a_batch_of_its_own(
    batches: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the data is that of any run: batch after batch, whichever network takes it."""
    steps = ["objective.critic_steps=2", f"objective.critic_batches={batches}"]
    seen = images_of_updates(config_of("relativistic", data, 3, *steps), tmp_path, monkeypatch)
    assert [network for network, _ in seen] == ["discriminator", "discriminator", "generator"] * 3
    assert newest(str(tmp_path))[1]["batches"] == (9 if batches == "fresh" else 6)
    assert newest(str(tmp_path))[1]["images"] == 6 * BATCH
    read = [mean for place, (_, mean) in enumerate(seen) if batches == "fresh" or place % 3 != 1]
    plain = config_of("lazy_r1", data, len(read))
    others = images_of_updates(plain, tmp_path / "plain", monkeypatch)
    assert [mean for network, mean in others if network == "discriminator"] == read


@pytest.mark.parametrize(
    ("example", "changes"),
    [("lazy_r1", ["objective.every=3"]), ("relativistic", ["training.augment=[translation]", "data.flip=true"])],
)
def test_a_resume_in_the_middle_is_exact(example: str, changes: list[str], data: str, tmp_path: Path) -> None:
    config = config_of(example, data, 5, *changes)
    run(config, str(tmp_path / "whole"))
    run(config, str(tmp_path / "halves"), stop_at=2)
    summary, recorder = run(config, str(tmp_path / "halves"))
    assert summary.resumed_at_kimg == pytest.approx(2 * BATCH / 1000)
    if example == "lazy_r1":
        assert ["loss/penalty" in event.terms for event in recorder.of(StepMetrics)] == [False, True, False]
    assert_same_bits(newest(str(tmp_path / "halves")), newest(str(tmp_path / "whole")))


# A penalty that is absent on some updates.


class LazyR1(Hinge):
    """Takes the R1 penalty on every fourth update, and of the groups `spared` none."""

    penalized = True

    def __init__(self, *, spared: int = 0) -> None:
        super().__init__(r1_weight=40.0)
        self.spared = spared

    def penalty(self, discriminator: Discriminator, real: Tensor, fake: Tensor, context: Context) -> Penalty | None:
        if context.update % 4 or context.group < self.spared:
            return None
        return super().penalty(discriminator, real, fake, context)


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
