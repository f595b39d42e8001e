"""A step is the same mathematics for every number of workers, and the same as a literal loop in plain PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conditional import NETWORKS as CONDITIONAL
from distgan.config.load import load_config, preset_names
from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.losses.context import Context
from distgan.losses.rng import derive_seed
from distgan.training.networks import Networks, build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.progress import Progress
from distgan.training.step import Step
from gloo import run_workers
from shrunken import shrunken
from steps import (
    ALONE,
    Batches,
    build_step,
    gradients_of,
    labeled_group,
    largest_difference,
    measure_case,
    real_group,
    state_of,
    train_steps,
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("one_thread")]

SMALL = [
    "image_size=16",
    "latent_dim=8",
    "generator.width=4",
    "discriminator.width=4",
    "training.batch_size=16",
    "data.streams=4",
    "scale.groups=4",
    "training.precision=float64",
]
NETWORKS = ("generator", "discriminator")
RMSPROP = "{name: rmsprop, lr: 5.0e-5}"
# For objectives of examples/, which this process and its workers import from there.
sys.path.append(str(Path(__file__).parents[2] / "examples"))
AUGMENTED = "training.augment=[color, translation, cutout]"
# Recipes that the package ships, sequential updates with batch statistics in the discriminator, labels, and every
# objective and penalty; images augmented, rates that decay and gradients of bounded norm among them.
CASES = {
    "quickstart": (
        "quickstart",
        ["objective.label_noise=0.1", "optimizer.generator.lr=2e-4", "optimizer.discriminator.lr=2e-4"],
    ),
    "dcgan-bricks": ("dcgan-bricks", ["objective.label_flips=0.1", "data.flip=true"]),
    "dcgan-bricks at 32 pixels, up-sampled": (
        "dcgan-bricks",
        ["image_size=32", "generator.upsampling=nearest", "training.channels_last=false"],
    ),
    "dcgan-bricks, sequential": ("dcgan-bricks", ["objective.updates=sequential", "data.flip=true"]),
    "wgan-gp-faces": ("wgan-gp-faces", []),
    "wgan-gp-faces, reuse": ("wgan-gp-faces", ["objective.critic_batches=reuse", "objective.interpolation=normal"]),
    "conditional": ("wgan-gp-faces", [*CONDITIONAL, "num_classes=3", "objective.generator_batch_multiple=2"]),
    "conditional, simultaneous": ("quickstart", [*CONDITIONAL, "num_classes=3", "discriminator.normalized=true"]),
    "wgan-gp, one side, augmented": (
        "wgan-gp-faces",
        ["objective.gp_sides=1", "objective.critic_steps=1", AUGMENTED, "optimizer.discriminator.max_grad_norm=0.1"],
    ),
    "wgan": (
        "dcgan-bricks",
        ["objective={name: wgan, critic_steps: 2}", *(f"optimizer.{network}={RMSPROP}" for network in NETWORKS)],
    ),
    "wgan, simultaneous": (
        "dcgan-bricks",
        ["objective={name: wgan, updates: simultaneous}", *(f"optimizer.{network}={RMSPROP}" for network in NETWORKS)],
    ),
    "hinge, r1, reuse": (
        "wgan-gp-faces",
        ["objective={name: hinge, r1_weight: 10, critic_steps: 2, critic_batches: reuse}", AUGMENTED],
    ),
    "bce, r1": (
        "wgan-gp-faces",
        [
            "objective={name: bce, r1_weight: {from: 2, to: 1, until_kimg: 1}}",
            "training.kimg=1",
            "optimizer.lr_factor={from: 1, to: 0, until_kimg: 1}",
        ],
    ),
    "real logits": (
        "wgan-gp-faces",
        ["objective={name: rpgan, critic_steps: 2}", AUGMENTED, "data.flip=true", "data.dequantize=true"],
    ),
    "real logits, labels, reuse": (
        "wgan-gp-faces",
        [
            *CONDITIONAL,
            "num_classes=3",
            "objective={name: rpgan, critic_steps: 2, critic_batches: reuse, generator_batch_multiple: 2}",
        ],
    ),
    "real logits, batch statistics": ("dcgan-bricks", ["objective={name: rpgan, gamma: 0}"]),
    "real logits, simultaneous": (
        "dcgan-bricks",
        ["objective={name: rpgan, gamma: 0, updates: simultaneous}"],
    ),
    "lazy rpgan": (
        "wgan-gp-faces",
        ["objective={name: rpgan, penalty_every: 2, r2_weight: 0.5, gamma: {from: 2, to: 1, until_kimg: 1}}"],
    ),
    "lazy wgan-gp": ("wgan-gp-faces", ["objective.penalty_every=2", "objective.critic_steps=1"]),
    "lazy r1": ("wgan-gp-faces", ["objective={name: 'lazy_r1:LazyR1', every: 2, critic_steps: 1}"]),
    "lazy r1, none at last": ("wgan-gp-faces", ["objective={name: 'lazy_r1:LazyR1', every: 4, critic_steps: 1}"]),
    "logits of patches": (
        "wgan-gp-faces",
        [
            "discriminator={network: 'small_network:PatchDiscriminator', width: 4}",
            "objective={name: rpgan, generator_batch_multiple: 2}",
        ],
    ),
    "dcgan-bricks, augmented": ("dcgan-bricks", [AUGMENTED, "optimizer.generator.max_grad_norm=0.01"]),
}

# All other presets as they are shipped, at small widths.
SHIPPED = [preset for preset in preset_names() if preset not in CASES]
ALL = [*CASES, *SHIPPED]


def small_config(case: str, *overrides: str) -> Config:
    if case in SHIPPED:
        return shrunken(case, *overrides)
    preset, changes = CASES[case]
    return load_config(preset, [*SMALL, *changes, *overrides])


# Adam divides a gradient by its own size, also where that is rounding: fifteen updates of one preset magnify it.
def bound_of(case: str, quantity: str) -> float:
    config = small_config(case)
    magnified = config.objective.name == "wgan_gp" and config.objective.critic_steps >= 5
    return 1e-8 if magnified and quantity == "state after 3 steps" else 1e-10


def measure(distributed: Distributed, cases: tuple[str, ...]) -> dict[str, dict[str, dict[str, Tensor]]]:
    """Of each case: what warming up changes, the first update's gradients, the terms and state after 3 steps."""
    return {case: measure_case(small_config(case), distributed) for case in cases}


@cache
def measured(size: int, cases: tuple[str, ...]) -> list[dict[str, dict[str, dict[str, Tensor]]]]:
    """What each rank of a world of `size` measured; one start of processes for all cases."""
    return run_workers(measure, size, cases, timeout_s=240)


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Those that this session tests."""
    name = test_a_step_is_the_same_for_every_number_of_workers.__name__
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    chosen = {item.callspec.params["case"] for item in items if item.originalname == name}
    return tuple(case for case in ALL if case in chosen or not chosen)


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_a_step_is_the_same_for_every_number_of_workers(size: int, case: str, cases: tuple[str, ...]) -> None:
    (alone,), ranks = measured(1, cases), measured(size, cases)
    for quantity, wanted in alone[case].items():
        if quantity == "warm-up changed":
            continue
        bound = bound_of(case, quantity)
        assert largest_difference(ranks[0][case][quantity], wanted) < bound, quantity
        for other in ranks[1:]:
            assert largest_difference(other[case][quantity], ranks[0][case][quantity]) == 0, quantity


@pytest.mark.parametrize("size", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_warming_up_leaves_no_trace(size: int, cases: tuple[str, ...]) -> None:
    for rank in measured(size, cases):
        assert {case: list(found["warm-up changed"]) for case, found in rank.items()} == {case: [] for case in cases}


def test_groups_and_draws_matter() -> None:
    """The comparison above could fail: another number of groups, or another update's draws, give another gradient."""
    wanted = measure_case(small_config("quickstart"), ALONE)["discriminator gradients"]
    joined = small_config("quickstart", "scale.groups=1")
    step, networks = build_step(joined)
    whole = torch.cat([real_group(small_config("quickstart"), 1, group) for group in range(4)])
    step.gradients("both", [Group(whole, torch.full((len(whole),), -1))], 0, 0)
    assert largest_difference(gradients_of(networks.discriminator), wanted) > 1e-3

    step, networks = build_step(small_config("quickstart"))
    step.gradients("both", Batches(step.config, range(4))(), 1, 0)
    assert largest_difference(gradients_of(networks.discriminator), wanted) > 1e-3


def test_generator_update_leaves_the_discriminator_alone() -> None:
    config = small_config("dcgan-bricks, sequential")
    step, networks = build_step(config)
    step.gradients("discriminator", Batches(config, range(4))(), 0, 0)
    gradients, state = gradients_of(networks.discriminator), state_of(networks)
    step.generator_update(Batches(config, range(4))(), 0, 0)
    assert largest_difference(gradients_of(networks.discriminator), gradients) == 0
    assert all(parameter.requires_grad for parameter in networks.discriminator.parameters())
    after = state_of(networks)
    assert all(torch.equal(after[k], v) for k, v in state.items() if k.startswith("discriminator"))
    # The generator's own: every parameter moves, and its statistics count one more forward.
    own = {name for name, _ in networks.generator.named_parameters(prefix="generator")}
    assert all(not torch.equal(after[name], state[name]) for name in own)
    counters = [name for name in state if name.startswith("generator") and "num_batches" in name]
    assert counters
    assert all(after[name] == state[name] + 1 for name in counters)


def test_discriminator_update_leaves_the_generators_weights_alone() -> None:
    config = small_config("dcgan-bricks, sequential")
    step, networks = build_step(config)
    state = state_of(networks)
    step.discriminator_update(Batches(config, range(4))(), 0)
    after = state_of(networks)
    assert not gradients_of(networks.generator)
    own = {name for name, _ in networks.generator.named_parameters(prefix="generator")}
    assert all(torch.equal(after[name], state[name]) for name in own)
    assert not torch.equal(after["discriminator.layers.0.weight"], state["discriminator.layers.0.weight"])


# A literal reference: one group, one process, plain PyTorch, textbook Adam.


class Adam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self, network: nn.Module, lr: float, betas: tuple[float, float], eps: float) -> None:
        self.parameters, self.lr, self.betas, self.eps = list(network.parameters()), lr, betas, eps
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.count = 0

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...]) -> None:
        self.count += 1
        (b1, b2), t = self.betas, self.count
        for i, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
            self.first[i] = b1 * self.first[i] + (1 - b1) * g
            self.second[i] = b2 * self.second[i] + (1 - b2) * g**2
            p -= self.lr * (self.first[i] / (1 - b1**t)) / ((self.second[i] / (1 - b2**t)).sqrt() + self.eps)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


def draw(config: Config, stream: str, update: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(config.seed, stream, update, 0))


def seed_layers(config: Config, stream: str, update: int) -> None:
    torch.manual_seed(derive_seed(config.seed, stream, update, 0))


def scaled(images: Tensor) -> Tensor:
    return images.double() / 127.5 - 1


def literal_simultaneous(config: Config, steps: int) -> dict[str, Tensor]:
    networks = build_networks(config, torch.device("cpu"))
    generator, discriminator = networks.generator, networks.discriminator
    adam_g, adam_d = (Adam(network, 2e-4, (0.5, 0.999), 1e-7) for network in (generator, discriminator))
    count = config.training.batch_size
    for step in range(steps):
        real = scaled(real_group(config, step + 1, 0))
        latents = torch.randn(count, config.latent_dim, generator=draw(config, "discriminator latents", step))
        fake = generator(latents.double())
        seed_layers(config, "discriminator layers", step)
        real_logits, fake_logits = discriminator(real), discriminator(fake)
        noise = 0.1 * torch.rand(2, count, generator=draw(config, "label noise", step)).double()
        loss_d = (cross_entropy(real_logits, 1 + noise[0]) + cross_entropy(fake_logits, -noise[1])) / 2
        loss_g = cross_entropy(fake_logits, torch.ones(count).double())
        gradient_d = torch.autograd.grad(loss_d, list(discriminator.parameters()), retain_graph=True)
        gradient_g = torch.autograd.grad(loss_g, list(generator.parameters()))
        adam_d.step(gradient_d)
        adam_g.step(gradient_g)
    return state_of(networks)


def literal_wgan_gp(config: Config, steps: int) -> dict[str, Tensor]:
    networks = build_networks(config, torch.device("cpu"))
    generator, discriminator = networks.generator, networks.discriminator
    adam_g, adam_d = (Adam(network, 2e-4, (0.5, 0.9), 1e-7) for network in (generator, discriminator))
    count, multiple = config.training.batch_size, config.objective.generator_batch_multiple
    for step in range(steps):
        for update in range(3 * step, 3 * step + 3):
            group = labeled_group(config, update + 1, 0)
            real, labels = scaled(group.images), () if config.num_classes is None else (group.labels,)
            latents = torch.randn(count, config.latent_dim, generator=draw(config, "discriminator latents", update))
            fake = generator(latents.double(), *labels).detach()
            seed_layers(config, "discriminator layers", update)
            scores = discriminator(torch.cat([real, fake]), *(torch.cat([label, label]) for label in labels))
            alpha = torch.rand(count, 1, 1, 1, generator=draw(config, "interpolation", update)).double()
            between = ((1 - alpha) * real + alpha * fake).requires_grad_()
            (slope,) = torch.autograd.grad(discriminator(between, *labels).sum(), between, create_graph=True)
            penalty = 10 * ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
            loss = scores[count:].mean() - scores[:count].mean() + penalty
            adam_d.step(torch.autograd.grad(loss, list(discriminator.parameters())))
        latents = torch.randn(multiple * count, config.latent_dim, generator=draw(config, "generator latents", step))
        labels = tuple(label.repeat(multiple) for label in labels)
        fake = generator(latents.double(), *labels)
        seed_layers(config, "frozen discriminator layers", step)
        adam_g.step(torch.autograd.grad(-discriminator(fake, *labels).mean(), list(generator.parameters())))
    return state_of(networks)


@pytest.mark.parametrize(
    ("case", "literal"),
    [("quickstart", literal_simultaneous), ("wgan-gp-faces", literal_wgan_gp), ("conditional", literal_wgan_gp)],
)
def test_a_step_is_the_literal_one(case: str, literal: Callable[[Config, int], dict[str, Tensor]]) -> None:
    config = small_config(case, "scale.groups=1")
    step, networks = build_step(config)
    train_steps(step, Batches(config, step.groups.local), 0, 3)
    wanted, found = literal(config, 3), state_of(networks)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}")


# What a resume depends on: data parallelism's buckets.


def resumed_weights(distributed: Distributed, warm_up: bool) -> dict[str, Any]:
    """Weights after 4 steps in one go, and after 2 steps and 2 more with everything wrapped anew."""
    config = small_config("wgan-gp-faces", "objective.critic_steps=1")
    networks = build_networks(config, distributed.device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    objective = build_objective(config)

    def session(networks: Networks, optimizers: Any, first: int, count: int) -> None:
        step = Step(config, networks, objective, optimizers, distributed)
        if warm_up:
            step.warm_up()
        batches = Batches(config, step.groups.local)
        batches.taken = first
        train_steps(step, batches, first, count)

    session(networks, optimizers, 0, 4)
    whole = state_of(networks)
    networks = build_networks(config, distributed.device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    session(networks, optimizers, 0, 2)
    session(networks, optimizers, 2, 2)
    return {"whole": whole, "resumed": state_of(networks)}


@pytest.mark.parametrize("size", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_wrapping_anew_gives_the_same_bits(size: int) -> None:
    for found in run_workers(resumed_weights, size, True):
        assert largest_difference(found["resumed"], found["whole"]) == 0


def test_without_warming_up_the_bits_differ() -> None:
    """What `warm_up` is for. Where this fails, torch has changed and it may go."""
    found = run_workers(resumed_weights, 3, False)[0]
    assert largest_difference(found["resumed"], found["whole"]) > 0


# Counting.


@pytest.mark.parametrize(
    ("case", "batches_a_step"),
    [
        ("quickstart", 1),
        ("wgan-gp-faces", 3),
        ("wgan-gp-faces, reuse", 1),
        ("real logits", 3),
        ("real logits, labels, reuse", 2),
        ("real logits, simultaneous", 1),
    ],
)
def test_progress_counts_the_batches_that_steps_take(case: str, batches_a_step: int) -> None:
    config = small_config(case)
    step, _ = build_step(config)
    batches, progress = Batches(config, step.groups.local), Progress()
    for number in (1, 2):
        step.run(batches, progress.discriminator_updates, progress.step)
        images = progress.advance(config, step.batches_per_step)
        assert images == config.objective.critic_steps * 16
        assert batches.taken == progress.batches == number * batches_a_step
        assert progress.step == number
        assert progress.discriminator_updates == number * config.objective.critic_steps
        assert progress.images == number * images


def test_a_context_counts_updates_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network's updates, and the images of all discriminator updates before."""
    config = small_config("real logits", "training.precision=float32")
    step, _ = build_step(config)
    seen: dict[str, list[tuple[int, float, int, torch.dtype]]] = {"discriminator_loss": [], "generator_loss": []}

    def noting(name: str, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noted(one: Tensor, other: Tensor, context: Context) -> Tensor:
            seen[name].append((context.update, context.kimg, context.group, context.dtype))
            return loss(one, other, context)

        return noted

    for name in seen:
        monkeypatch.setattr(step.objective, name, noting(name, getattr(step.objective, name)))
    train_steps(step, Batches(config, step.groups.local), 5, 2)
    wanted = {"discriminator_loss": {10: 160, 11: 176, 12: 192, 13: 208}, "generator_loss": {5: 192, 6: 224}}
    for name, updates in wanted.items():
        assert seen[name] == [
            (update, images / 1000, group, torch.float32) for update, images in updates.items() for group in range(4)
        ]


def test_terms_are_means_over_the_batch() -> None:
    """Every term of a step of one group, from its definition."""
    config = small_config("quickstart", "scale.groups=1")
    step, networks = build_step(config)
    real, draws = scaled(real_group(config, 1, 0)), Context(0, 0.0, config.seed, 0, ALONE.device, torch.float64)
    fake = networks.generator(draws.normal("discriminator latents", 16, 8))
    draws.seed_layers("discriminator layers")
    real_logits, fake_logits = networks.discriminator(real), networks.discriminator(fake)
    wanted = {
        "loss/discriminator": step.objective.discriminator_loss(real_logits, fake_logits, draws),
        "loss/generator": F.softplus(-fake_logits).mean(),
        "logits/real": real_logits.mean(),
        "logits/fake": fake_logits.mean(),
        "accuracy/real": (real_logits > 0).double().mean(),
        "accuracy/fake": (fake_logits <= 0).double().mean(),
    }
    parts = {"discriminator": networks.discriminator, "generator": networks.generator}
    for name, network in parts.items():
        gradients = torch.autograd.grad(wanted[f"loss/{name}"], list(network.parameters()), retain_graph=True)
        wanted[f"gradients/{name}"] = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    terms = step.run(Batches(config, step.groups.local), 0, 0).values
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(terms[name]) == pytest.approx(value.item(), rel=1e-9), name


@pytest.mark.parametrize("case", ["quickstart", "wgan-gp-faces"])
def test_bfloat16_trains_float32_weights(case: str) -> None:
    config = small_config(case, "training.precision=bfloat16")
    step, networks = build_step(config)
    before = state_of(networks)
    terms = train_steps(step, Batches(config, step.groups.local), 0, 2)[-1]
    after = state_of(networks)
    assert all(value.isfinite() and value.dtype == torch.float32 for value in terms.values())
    assert {value.dtype for value in after.values()} == {torch.float32, torch.int64}
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(after["generator.layers.1.weight"], before["generator.layers.1.weight"])
