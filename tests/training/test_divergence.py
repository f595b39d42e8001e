"""A run whose losses or weights are no longer finite ends at once, on every rank, and keeps only what is good."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from distgan.cli.main import main
from distgan.config.load import dump_config
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.losses.bce import BinaryCrossEntropy
from distgan.losses.context import Context
from distgan.training.checkpoints import checkpoint_name
from distgan.training.events import CheckpointSaved, EvaluationResult, RunFinished, StepMetrics
from distgan.training.meter import Meter
from distgan.training.optimizers import Optimizers
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from gloo import run_workers
from runs import ALONE, Recorder, assert_same_bits, checkpoints, newest, run, tiny_config

pytestmark = pytest.mark.timeout(120)

# Steps count from 1, a step's draws from 0. The last group is the last rank's.
BAD_STEP = 6
BAD_GROUP = 3
EVERY_TWO = ["checkpoint.every_kimg=0.032", "checkpoint.keep_last=1"]


discriminator_loss = BinaryCrossEntropy.discriminator_loss


def poisoned_loss(poison: str) -> Any:
    """A discriminator loss that is poisoned in one group of one step, never in the warm-up."""

    def loss(self: BinaryCrossEntropy, real_logits: Tensor, fake_logits: Tensor, draws: Context) -> Tensor:
        good = discriminator_loss(self, real_logits, fake_logits, draws)
        if (draws.update + 1, draws.group) != (BAD_STEP, BAD_GROUP):
            return good
        if poison == "gradient":  # the slope of a root at 0, times 0
            return good + (fake_logits * 0).abs().sqrt().sum()
        return good + float(poison)

    return loss


def poisoned(distributed: Distributed, config: Config, storage: str, poison: str) -> tuple[str, list[type], list[int]]:
    """The error of a run, the kinds of its events, and the steps that it saved."""
    recorder = Recorder()
    with (
        patch.object(BinaryCrossEntropy, "discriminator_loss", poisoned_loss(poison)),
        pytest.raises(UserError) as caught,
    ):
        train(RunSpec(config, "run", storage), distributed, recorder)
    saved = [event.step for event in recorder.of(CheckpointSaved)]
    return str(caught.value), [type(event) for event in recorder.events], saved


def on_workers(size: int, work: Any, *arguments: Any) -> list[Any]:
    """`work` on so many workers; a single one is this process."""
    return run_workers(work, size, *arguments) if size > 1 else [work(ALONE, *arguments)]


# Where metrics are first synchronized after the bad step.
MEETINGS = {
    "a row of metrics": (20, ["training.log_every=10"]),
    "an evaluation": (20, ["training.log_every=100", "evaluation.every_kimg=0.112"]),
    "a checkpoint": (20, ["training.log_every=100", *EVERY_TWO]),
    "a grid of samples": (20, ["training.log_every=100", "training.samples_every_kimg=0.112"]),
    "the end": (7, ["training.log_every=100"]),
}


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_first_bad_update_is_named_wherever_it_is_found(size: int, data: str, tmp_path: Path) -> None:
    _, recorder = run(tiny_config("quickstart", data, BAD_STEP), str(tmp_path), "good")
    before = recorder.of(StepMetrics)[BAD_STEP - 2].terms
    for number, (where, (steps, keys)) in enumerate(MEETINGS.items()):
        storage = tmp_path / f"{size}-{number}"
        config = tiny_config("quickstart", data, steps, *keys)
        answers = on_workers(size, poisoned, config, str(storage), "nan")
        message, kinds, saved = answers[0]
        assert {answer[0] for answer in answers} == {message}, where
        assert message.startswith(
            f"{storage}/run: training diverged at step 6 (0.096 kimg): loss/discriminator is nan; "
            f"the last finite losses were loss/discriminator="
        ), where
        for name in ("loss/discriminator", "loss/generator"):
            logged = float(message.split(f"{name}=")[1].split(",")[0].split(";")[0])
            assert logged == pytest.approx(before[name], rel=2e-3), where
        assert EvaluationResult not in kinds
        assert RunFinished not in kinds
        whole = [4] if where == "a checkpoint" else []
        assert checkpoints(str(storage)).names() == [checkpoint_name(step) for step in whole], where
        assert saved == ([2, 4] if whole else []), where
        kept = "the last checkpoint, checkpoints/step-000000004, is kept" if whole else "there is no checkpoint yet"
        assert kept in message, where
        assert message.endswith(
            "start a new run with another --name and a lower optimizer.generator.lr (now 0.0008) or "
            "optimizer.discriminator.lr (now 0.0004)"
        ), where


@pytest.mark.parametrize("poison", ["inf", "-inf"])
def test_infinite_losses_end_a_run_too(poison: str, data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 20, "training.log_every=8")
    ((message, _, _),) = on_workers(1, poisoned, config, str(tmp_path), poison)
    assert f"at step 6 (0.096 kimg): loss/discriminator is {poison};" in message


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_weights_that_a_finite_loss_spoils_are_not_saved(size: int, data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 20, "training.log_every=1", *EVERY_TWO)
    answers = on_workers(size, poisoned, config, str(tmp_path), "gradient")
    message, kinds, saved = answers[0]
    assert {answer[0] for answer in answers} == {message}
    assert "at step 6 (0.096 kimg): gradients/discriminator is nan; the last finite" in message
    assert kinds.count(StepMetrics) == 5
    assert saved == [2, 4]
    assert checkpoints(str(tmp_path)).names() == [checkpoint_name(4)]
    # The last checkpoint resumes as if nothing had happened.
    on_workers(size, finish, config, str(tmp_path), "run")
    on_workers(size, finish, config, str(tmp_path), "whole")
    assert_same_bits(newest(str(tmp_path)), newest(str(tmp_path), "whole"))


def finish(distributed: Distributed, config: Config, storage: str, name: str) -> None:
    run(config, storage, name, distributed=distributed)


def spoil_weights_at_the_bad_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an optimizer that overflows: loss and gradient of that update are finite."""
    updates = []
    update_discriminator = Optimizers.update_discriminator

    def spoil(optimizers: Optimizers) -> None:
        update_discriminator(optimizers)
        updates.append(1)
        if len(updates) == BAD_STEP:
            with torch.no_grad():
                optimizers.discriminator.param_groups[0]["params"][0][0] = torch.inf

    monkeypatch.setattr(Optimizers, "update_discriminator", spoil)


def test_weights_that_an_optimizer_spoiled_are_not_saved(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_weights_at_the_bad_step(monkeypatch)
    with pytest.raises(UserError, match=r"at step 6 \(0\.096 kimg\): the numbers of discriminator are not"):
        run(tiny_config("quickstart", data, 20, *EVERY_TWO), str(tmp_path))
    assert checkpoints(str(tmp_path)).names() == [checkpoint_name(4)]


def test_the_next_loss_shows_spoiled_weights(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_weights_at_the_bad_step(monkeypatch)
    with pytest.raises(UserError, match=r"at step 7 \(0\.112 kimg\): .*loss/discriminator is nan"):
        run(tiny_config("quickstart", data, 20, "training.log_every=3"), str(tmp_path))


def test_the_command_line_prints_one_line(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(dump_config(tiny_config("quickstart", data, 8)))
    storage = str(tmp_path / "runs")
    monkeypatch.setattr(sys, "argv", ["distgan", "train", str(file), "--no-ray", "--storage", storage])
    monkeypatch.setattr(BinaryCrossEntropy, "discriminator_loss", poisoned_loss("nan"))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith(f"distgan: error: {storage}/tiny: training diverged at step 6")


def test_means_are_over_all_steps_since_the_last_row() -> None:
    meter = Meter()
    for value in (1.0, 2.0):
        meter.add_step({"loss/b": torch.tensor(value), "loss/a": torch.tensor(0.0)}, 4)
    meter.count(bad_samples=3)
    terms, counts = meter.sync_metrics(ALONE)
    assert terms == [{"loss/a": 0.0, "loss/b": 1.0}, {"loss/a": 0.0, "loss/b": 2.0}]
    assert counts == {"bad_samples": 3}
    meter.count(bad_samples=1)
    assert meter.sync_metrics(ALONE) == ([], {})
    meter.add_step({"loss/b": torch.tensor(6.0), "loss/a": torch.tensor(3.0)}, 4)
    assert meter.sync_metrics(ALONE) == ([{"loss/a": 3.0, "loss/b": 6.0}], {"bad_samples": 1})
    means, *_, counts = meter.take()
    assert (means, counts) == ({"loss/a": 1.0, "loss/b": 3.0}, {"bad_samples": 4})
