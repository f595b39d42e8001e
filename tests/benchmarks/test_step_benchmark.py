"""A step against plain PyTorch: the plain loop, what is compared and counted, and the table."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import step
from benchmarks.batches import DistganLoop, ready_batches
from benchmarks.correctness import loss_difference, relative_difference, trajectory
from benchmarks.phases import host_draws, peak_bytes, phases
from benchmarks.plain_loop import LOSSES, PlainLoop, bce_losses, gradient
from benchmarks.roofline import Peaks, Work, limit, work_of
from distgan.config.load import load_config, preset_names
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.losses.context import Context
from distgan.losses.penalties import image_gradients
from distgan.training.networks import build_objective

pytestmark = pytest.mark.timeout(120)

CPU = torch.device("cpu")
TINY = ["generator.width=8", "discriminator.width=8", "training.batch_size=8", "data.streams=4", "scale.groups=1"]
SMALLER = {"sagan-faces128": ["image_size=16", "generator.attention_at=8", "discriminator.attention_at=8"]}
RPGAN = "objective={name: rpgan}"


def tiny(preset: str, *keys: str) -> Config:
    return load_config(preset, [*TINY, *SMALLER.get(preset, []), *keys])


def loop_of(config: Config, batches: int = 2) -> DistganLoop:
    return DistganLoop(config, Distributed(0, 1, CPU), ready_batches(config, batches, CPU))


def context_of(config: Config) -> Context:
    return Context(0, 0.0, config.seed, 0, CPU, torch.float32)


# The plain loop.


@pytest.mark.parametrize("name", [*LOSSES, "bce"])
def test_the_plain_losses_are_those_of_the_objectives(name: str) -> None:
    noise = "objective={name: bce, label_noise: 0}" if name == "bce" else f"objective={{name: {name}}}"
    config = tiny("wgan-gp-faces", noise)
    objective = build_objective(config)
    real, fake = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    discriminator, generator = bce_losses() if name == "bce" else LOSSES[name]
    # The tutorial adds the halves of the cross-entropy.
    halves = 2 if name == "bce" else 1
    wanted = halves * objective.discriminator_loss(real, fake, context_of(config))
    torch.testing.assert_close(discriminator(real, fake), wanted)
    torch.testing.assert_close(generator(fake, real), objective.generator_loss(fake, real, context_of(config)))


@pytest.mark.parametrize(
    "objective",
    [
        "{name: rpgan, gamma: 3, r2_weight: 0.5}",
        "{name: hinge, r1_weight: 2}",
        "{name: bce, r1_weight: 2, r2_weight: 1}",
    ],
)
def test_the_plain_penalties_are_those_of_the_objectives(objective: str) -> None:
    config = tiny("wgan-gp-faces", f"objective={objective}", "discriminator.dropout=0")
    plain = PlainLoop(config, CPU, ready_batches(config, 1, CPU))
    real, fake = torch.rand(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = plain.penalty(real, fake, ())
    wanted = build_objective(config).penalty(plain.discriminator, real, fake, context_of(config))
    assert wanted is not None
    torch.testing.assert_close(found, wanted.loss)
    assert found.item() > 0


def test_the_plain_gradient_is_that_of_the_penalties() -> None:
    plain = PlainLoop(tiny("wgan-gp-faces", "discriminator.dropout=0"), CPU, [])
    images = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(gradient(plain.discriminator, images), image_gradients(plain.discriminator, images))


def weights(loop: PlainLoop) -> list[Tensor]:
    return [p.detach().clone() for network in (loop.generator, loop.discriminator) for p in network.parameters()]


@pytest.mark.parametrize("preset", [*preset_names(), RPGAN])
def test_the_plain_loop_trains_every_preset(preset: str) -> None:
    """Without augmentation, which it lacks."""
    config = tiny("wgan-gp-faces", preset) if preset == RPGAN else tiny(preset, "training.augment=[]")
    if config.image_size > 128:
        config = config.model_copy(update={"image_size": 32})
    batches = ready_batches(config, 2, CPU)
    loop = PlainLoop(config, CPU, batches)
    before = weights(loop)
    loop.step()
    loop.step()  # the first one of r3gan moves only the last layer of each block
    assert loop.updates == 2 * config.objective.critic_steps
    # One batch for each discriminator update and, with real logits in it, one for the generator's.
    assert loop.taken == 2 * (config.objective.critic_steps + (config.objective.name == "rpgan"))
    assert all(value.isfinite().all() for value in weights(loop))
    assert sum(not torch.equal(a, b) for a, b in zip(before, weights(loop), strict=True)) > len(before) / 2


def test_what_the_plain_loop_lacks_is_an_error() -> None:
    with pytest.raises(UserError, match="the plain loop has no augmentation"):
        PlainLoop(tiny("dcgan-bricks", "training.augment=[color]"), CPU, [])


# What is compared.


def test_relative_differences() -> None:
    wanted = torch.tensor([3.0, 4.0])
    assert relative_difference(wanted, wanted) == 0
    assert relative_difference(torch.tensor([3.0, 4.5]), wanted) == pytest.approx(0.1)
    assert relative_difference(torch.tensor([3.0, math.nan]), wanted) == math.inf
    assert relative_difference(torch.ones(1), torch.zeros(1)) == math.inf
    steps = [{"a": torch.tensor(1.0), "b": torch.tensor(-10.0)}, {"a": torch.tensor(2.0), "b": torch.tensor(5.0)}]
    other = [steps[0], {"a": torch.tensor(2.5), "b": torch.tensor(6.0)}]
    assert loss_difference(other, steps) == pytest.approx(0.25)  # of a, whose largest value is 2; of b, 0.1
    assert loss_difference([steps[0], {"a": torch.tensor(math.nan), "b": torch.tensor(5.0)}], steps) == math.inf


def test_the_same_steps_are_the_same_and_other_ones_are_not() -> None:
    config = tiny("dcgan-bricks")
    wanted, same = trajectory(loop_of(config), 3), trajectory(loop_of(config), 3)
    assert set(same.differences(wanted).values()) == {0.0}
    other = trajectory(loop_of(tiny("dcgan-bricks", "optimizer.discriminator.lr=3e-4")), 3)
    assert min(other.differences(wanted).values()) > 1e-4
    assert 0 < wanted.moved < 1


# Where the time goes.


def span(name: str, begin: float, duration: float) -> dict[str, Any]:
    return {"cat": "user_annotation", "name": f"distgan: {name}", "ts": begin, "dur": duration, "tid": 1}


def launch(begin: float, number: int, tid: int = 1) -> dict[str, Any]:
    return {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": begin, "dur": 1, "tid": tid} | {
        "args": {"correlation": number}
    }


def on_device(begin: float, duration: float, number: int, kind: str = "kernel", name: str = "conv") -> dict[str, Any]:
    return {"cat": kind, "name": name, "ts": begin, "dur": duration, "args": {"correlation": number}}


def test_phases_have_their_own_time_and_what_was_launched_in_them() -> None:
    events = [
        span("step", 0, 10_000),
        span("discriminator", 1_000, 4_000),
        span("draws", 1_500, 500),
        launch(1_100, 1),
        launch(4_900, 2, tid=2),  # a backward pass, from a thread of its own
        launch(7_000, 3),
        launch(1_050, 4),
        on_device(6_000, 2_000, 1),  # long after it was launched
        on_device(8_000, 1_000, 2),
        on_device(9_000, 500, 3),
        on_device(1_060, 250, 4, "gpu_memcpy", "Memcpy HtoD (Pinned -> Device)"),
        {"cat": "gpu_user_annotation", "name": "distgan: step", "ts": 0, "dur": 9_000},
        {"ph": "M", "name": "process_name"},
    ]
    assert phases(events, 2) == {
        "rest": {"host_ms": 3.0, "device_ms": 0.25},
        "discriminator": {"host_ms": 1.75, "device_ms": 1.5},
        "draws": {"host_ms": 0.25, "device_ms": 0.0},
        "data copy": {"host_ms": 0.0, "device_ms": 0.125},
    }


def test_the_peak_of_a_step_is_beside_what_was_there_before() -> None:
    totals = [(100, 1_100), (500, 1_600), (-500, 1_100), (200, 1_300)]
    events = [{"name": "[memory]", "args": {"Bytes": size, "Total Allocated": total}} for size, total in totals]
    assert peak_bytes(events) == 600
    assert peak_bytes([]) == 0


def test_host_draws_are_those_of_a_step() -> None:
    loop = loop_of(tiny("dcgan-bricks"))
    # Latents, label noise, and the seeds of both networks' layers.
    assert host_draws(loop.step)["count"] == 4
    assert "noting" not in Context.uniform.__qualname__


# The roofline.


def test_the_limit_is_the_longer_of_both_times() -> None:
    work = Work(images=100, flops=4_000, product_bytes=600, update_bytes=200)
    peaks = Peaks({"float32": 1_000.0, "bfloat16": 100_000.0}, 100.0)
    assert limit(work, Peaks({"float32": 400.0}, 100.0), "float32") == {"images_per_s": 10.0, "bound": "arithmetic"}
    assert limit(work, peaks, "float32") == {"images_per_s": 12.5, "bound": "memory"}
    assert limit(work, peaks, "bfloat16") == {"images_per_s": 20.0, "bound": "memory"}


def test_the_work_of_a_step_grows_with_the_batch() -> None:
    small = work_of(tiny("dcgan-bricks"), CPU)
    large = work_of(tiny("dcgan-bricks", "training.batch_size=16"), CPU)
    assert large.images == 2 * small.images == 16
    assert large.flops == 2 * small.flops
    assert small.product_bytes < large.product_bytes < 2 * small.product_bytes
    sizes = loop_of(tiny("dcgan-bricks")).networks.parameter_counts
    assert small.update_bytes == large.update_bytes == 4 * (10 * sizes["generator"] + 7 * sizes["discriminator"])


# The table.


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "step.json"
    built = DistganLoop.__init__

    def failing(self: DistganLoop, config: Config, *arguments: Any, **more: Any) -> None:
        if config.training.compile == "on":
            raise RuntimeError("no compiler\nwas found")
        built(self, config, *arguments, **more)

    monkeypatch.setattr(DistganLoop, "__init__", failing)
    given = ["--device", "cpu", "--quick", "--threads", "1", "--preset", "dcgan-bricks", "--json", str(file)]
    step.main([*given, "--options", "contiguous,tf32,compile", *TINY, "image_size=16"])
    tree = json.loads(file.read_text())
    rows = {row["name"]: row for row in tree["rows"]}
    assert list(rows) == ["plain PyTorch", "eager", "contiguous", "tf32", "compile"]
    assert rows["contiguous"]["ok"] is True
    assert rows["contiguous"]["ratio"] > 0
    assert {"discriminator", "generator", "optimizers", "average", "rest"} <= set(rows["eager"]["phases"])
    assert rows["eager"]["peak_mib"] > 0
    assert 0 < rows["eager"]["draws_share"] < 1
    assert rows["tf32"]["reason"].startswith("training.precision=tf32: ")
    assert rows["compile"]["reason"] == "RuntimeError: no compiler"
    printed = capsys.readouterr().out
    assert "- compile: RuntimeError: no compiler" in printed
    assert "| contiguous | " in printed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--options", "float8"], "--options float8: no such option; there are contiguous, "),
        (["--options", "tf32+grphs"], "--options grphs: no such option"),
        (["--preset", "dcgan"], "unknown preset 'dcgan'"),
        (["training.btch=3"], "training.btch"),
        (["--batch", "7"], "training.batch_size=7"),
    ],
)
def test_mistakes_are_one_line(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        step.main(["--device", "cpu", *given])
    assert ended.value.code == 2
    assert message in capsys.readouterr().out


def test_without_time_nothing_is_measured() -> None:
    settings = step.Settings(until=0.0)
    tree = step.measure("dcgan-bricks", [*TINY, "image_size=16"], ["contiguous"], CPU, settings)
    assert {row["reason"] for row in tree["rows"]} == {"not measured: out of time"}
