"""Optimizers against the papers' algorithms, rates at given steps, gradients of bounded norm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distgan.config.optimizer import AdamConfig, OptimizerConfig, OptimizersConfig, RMSPropConfig
from distgan.config.schedule import Schedule, find_schedules
from distgan.training.events import StepMetrics
from distgan.training.optimizers import Optimizers, build_optimizers
from runs import assert_same_bits, newest, run, tiny_config

pytestmark = pytest.mark.timeout(120)

RMSPROP = "optimizer.discriminator={name: rmsprop, lr: 1.0e-3, max_grad_norm: 0.5}"


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def gradients(like: nn.Module, step: int, scale: float = 1.0) -> list[Tensor]:
    random = torch.Generator().manual_seed(step)
    return [scale * torch.randn(p.shape, generator=random, dtype=p.dtype) for p in like.parameters()]


def give(module: nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(module.parameters(), values, strict=True):
        parameter.grad = value.clone()


def optimizers(generator: OptimizerConfig, discriminator: OptimizerConfig, **decay: float) -> Optimizers:
    config = OptimizersConfig(generator=generator, discriminator=discriminator, **decay)  # type: ignore[arg-type]
    return build_optimizers(config, network(), network())


def moved(both: Optimizers) -> list[Tensor]:
    return both.discriminator.param_groups[0]["params"]  # type: ignore[no-any-return]


def test_rmsprop_is_the_literal_one() -> None:
    critic = network()
    config = OptimizersConfig(discriminator=RMSPropConfig(name="rmsprop", lr=1e-2, alpha=0.9, eps=1e-4))
    both = build_optimizers(config, network(), critic)
    wanted = [p.detach().clone() for p in critic.parameters()]
    squares = [torch.zeros_like(p) for p in wanted]
    for step in range(4):
        values = gradients(critic, step)
        give(critic, values)
        both.update_discriminator()
        for p, square, g in zip(wanted, squares, values, strict=True):
            square.copy_(0.9 * square + 0.1 * g**2)
            p -= 1e-2 * g / (square.sqrt() + 1e-4)
    for found, value in zip(critic.parameters(), wanted, strict=True):
        torch.testing.assert_close(found.data, value, rtol=1e-12, atol=1e-14)


def test_each_network_has_its_optimizer_and_rate() -> None:
    both = optimizers(AdamConfig(lr=1e-4, beta1=0.0), RMSPropConfig(name="rmsprop", lr=4e-4))
    assert isinstance(both.generator, torch.optim.Adam)
    assert both.generator.defaults["fused"]
    assert isinstance(both.discriminator, torch.optim.RMSprop)
    both.follow_schedules(10**6)
    assert [both.generator.param_groups[0]["lr"], both.discriminator.param_groups[0]["lr"]] == [1e-4, 4e-4]


def test_rates_and_decays_follow_schedules() -> None:
    """Each network's own, and the common factor of the rates."""
    down = Schedule(from_=1, to=0, from_kimg=10, until_kimg=30, shape="linear")
    beta2 = Schedule(from_=0.9, to=0.98, until_kimg=40, shape="linear")
    alpha = Schedule(from_=0.5, to=0.9, until_kimg=40, shape="linear")
    half = Schedule(from_=1e-3, to=5e-4, until_kimg=20, shape="linear")
    both = optimizers(
        AdamConfig(lr=half, beta1=0.5, beta2=beta2), RMSPropConfig(name="rmsprop", lr=4e-3, alpha=alpha), lr_factor=down
    )
    wanted = {
        0: (1e-3, 0.9, 4e-3, 0.5),
        10: (7.5e-4, 0.92, 4e-3, 0.6),
        20: (2.5e-4, 0.94, 2e-3, 0.7),
        30: (0, 0.96, 0, 0.8),
        50: (0, 0.98, 0, 0.9),
    }
    for kimg, values in wanted.items():
        both.follow_schedules(kimg)
        (generator,), (discriminator,) = both.generator.param_groups, both.discriminator.param_groups
        found = (generator["lr"], generator["betas"][1], discriminator["lr"], discriminator["alpha"])
        assert found == pytest.approx(values)
        assert generator["betas"][0] == 0.5


def test_former_keys_of_the_decay() -> None:
    """A configuration from before there were schedules."""
    former = {"decay_from_kimg": 10.0, "decay_until_kimg": 30.0}
    both = build_optimizers(OptimizersConfig.model_validate(former), network(), network())
    wanted = {0: 1, 9_999: 1, 10_000: 1, 15_000: 0.75, 20_000: 0.5, 29_000: 0.05, 30_000: 0, 40_000: 0}
    for images, factor in wanted.items():
        both.follow_schedules(images / 1000)
        assert both.generator.param_groups[0]["lr"] == pytest.approx(2e-4 * factor)
        assert both.discriminator.param_groups[0]["lr"] == pytest.approx(2e-4 * factor)
    constant = OptimizersConfig.model_validate({"decay_from_kimg": 0.0, "decay_until_kimg": None})
    assert constant == OptimizersConfig()


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_norm_of_the_whole_networks_gradient_is_bounded(scale: float) -> None:
    critic = network()
    config = OptimizersConfig(discriminator=AdamConfig(max_grad_norm=2.0))
    both = build_optimizers(config, network(), critic)
    values = gradients(critic, 0, scale)
    give(critic, values)
    both.update_discriminator()
    norm = math.sqrt(sum(float(value.square().sum()) for value in values))
    factor = 2 / norm if norm > 2 else 1
    for parameter, value in zip(critic.parameters(), values, strict=True):
        torch.testing.assert_close(parameter.grad, value * factor, rtol=1e-6, atol=0.0)


def test_without_a_bound_gradients_stay() -> None:
    critic = network()
    both = build_optimizers(OptimizersConfig(), network(), critic)
    values = gradients(critic, 0, 1e6)
    give(critic, values)
    both.update_discriminator()
    assert all(torch.equal(p.grad, value) for p, value in zip(critic.parameters(), values, strict=True))  # type: ignore[arg-type]


def test_a_bound_for_one_network_leaves_the_other() -> None:
    both = optimizers(AdamConfig(max_grad_norm=1e-3), AdamConfig())
    for optimizer in (both.generator, both.discriminator):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
    both.update_generator()
    both.update_discriminator()
    assert all(p.grad is not None and p.grad.max() == 1 for p in moved(both))
    assert all(p.grad.max() < 1e-3 for p in both.generator.param_groups[0]["params"])


def test_a_resume_has_the_same_rates_and_bits(data: str, tmp_path: Path) -> None:
    """Decaying rates, RMSProp, bounded gradients, weight clipping and augmentation, stopped after each step."""
    config = tiny_config(
        "quickstart", data, 4, "objective={name: wgan, updates: simultaneous}", RMSPROP, "training.kimg=0.064",
        "optimizer.lr_factor={from: 1, to: 0, from_kimg: 0.016, until_kimg: 0.08, shape: linear}",
        "training.augment=[color, translation, cutout]",
    )  # fmt: skip
    run(config, str(tmp_path), "whole")
    for step in range(1, 5):
        run(config, str(tmp_path), "stopped", stop_at=step)
        # The step began after `step - 1` batches of 16 images; its rate lies on the way from 16 images to 80.
        factor = min(1.0, (80 - 16 * (step - 1)) / 64)
        leaves, _ = newest(str(tmp_path), "stopped")
        for part, rate in (("generator", 8e-4), ("discriminator", 1e-3)):
            assert leaves[f"/{part}_optimizer/param_groups/0/lr"] == pytest.approx(rate * factor)
    assert_same_bits(newest(str(tmp_path), "whole"), newest(str(tmp_path), "stopped"))


def test_a_resume_in_the_middle_of_every_schedule(data: str, tmp_path: Path) -> None:
    """Rates, decays, a penalty weight, the half-life and the probability of augmentation, stopped after each step."""
    way = "from_kimg: 0.016, until_kimg: 0.064"
    config = tiny_config(
        "wgan-gp-faces", data, 4, "objective={name: hinge, critic_steps: 1}",
        f"objective.r1_weight={{from: 4, to: 1, {way}}}",
        f"optimizer.generator.lr={{from: 2e-4, to: 1e-4, {way}}}",
        f"optimizer.discriminator.beta2={{from: 0.9, to: 0.99, {way}}}",
        f"ema={{half_life_kimg: {{from: 0, to: 0.1, {way}, shape: linear}}, ramp_up: null}}",
        "training.augment=[color, translation]", f"training.augment_probability={{from: 0, to: 1, {way}}}",
        "training.log_every=1",
    )  # fmt: skip
    _, recorder = run(config, str(tmp_path), "whole")
    schedules = dict(find_schedules(config))
    assert len(schedules) == 5
    for row in recorder.of(StepMetrics):
        shown = {name: value for name, value in row.terms.items() if name.startswith("schedule/")}
        assert shown == {f"schedule/{key}": schedule.at(row.kimg) for key, schedule in schedules.items()}
    for step in range(1, 5):
        run(config, str(tmp_path), "stopped", stop_at=step)
        leaves, _ = newest(str(tmp_path), "stopped")
        kimg = 0.016 * (step - 1)
        betas = leaves["/discriminator_optimizer/param_groups/0/betas"]
        assert betas == (0.5, schedules["optimizer.discriminator.beta2"].at(kimg))
        assert leaves["/generator_optimizer/param_groups/0/lr"] == schedules["optimizer.generator.lr"].at(kimg)
    assert_same_bits(newest(str(tmp_path), "whole"), newest(str(tmp_path), "stopped"))


def test_a_raised_budget_changes_no_rate(data: str, tmp_path: Path) -> None:
    """Where the rates end is a key of its own: the budget may change between sessions."""

    def train(name: str, kimg: float) -> dict[str, Any]:
        decay = ["optimizer.lr_factor={from: 1, to: 0, until_kimg: 0.096}", f"training.kimg={kimg}", "ema.ramp_up=null"]
        run(tiny_config("quickstart", data, 4, *decay), str(tmp_path), name)
        return newest(str(tmp_path), name)[0]

    whole = train("whole", 0.064)
    train("raised", 0.032)
    raised = train("raised", 0.064)
    assert whole.keys() == raised.keys()
    for path, value in whole.items():
        assert torch.equal(value, raised[path]) if isinstance(value, Tensor) else value == raised[path], path


@pytest.mark.parametrize("name", ["step", "exp_avg", "exp_avg_sq"])
def test_moments_of_other_shapes_are_not_taken(name: str) -> None:
    """A fused optimizer would write beyond their memory."""
    both = optimizers(AdamConfig(), AdamConfig())
    for part, update in ((both.generator, both.update_generator), (both.discriminator, both.update_discriminator)):
        for parameter in part.param_groups[0]["params"]:
            parameter.grad = torch.ones_like(parameter)
        update()
    saved = both.discriminator.state_dict()
    both.load_moments(both.generator.state_dict(), saved)
    saved["state"][0][name] = torch.zeros(()) if name != "step" else torch.zeros(3)
    with pytest.raises(ValueError, match=f"^{name} has shape"):
        both.load_moments(both.generator.state_dict(), saved)
