"""Steps of the objectives, with augmentation, against literal loops in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.losses.context import Context
from distgan.training.augmentation import Augment
from distgan.training.networks import Networks, build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.step import Step
from runs import ALONE

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

SMALL = [
    "image_size=16", "latent_dim=8", "generator.width=4", "discriminator={network: wgan_gp, width: 4, init: glorot}",
    "training.batch_size=16", "data.streams=4", "scale.groups=1", "training.precision=float64",
]  # fmt: skip


def small_config(*overrides: str) -> Config:
    return load_config("dcgan-bricks", [*SMALL, *overrides])


def build_step(config: Config) -> tuple[Step, Networks]:
    networks = build_networks(config, ALONE.device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    return Step(config, networks, build_objective(config), optimizers, ALONE), networks


def real_batches() -> Iterator[Group]:
    random = torch.Generator().manual_seed(0)
    while True:
        images = torch.randint(0, 256, (16, 1, 16, 16), dtype=torch.uint8, generator=random)
        yield Group(images, torch.zeros(16, dtype=torch.int64))


def scaled(batch: Group) -> Tensor:
    return batch.images.double() / 127.5 - 1


def draws(config: Config, update: int) -> Context:
    return Context(update, 0.0, config.seed, 0, ALONE.device, torch.float64)


class RMSProp:
    """Tieleman and Hinton 2012."""

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.parameters, self.lr = list(network.parameters()), lr
        self.squares = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, loss: Tensor, lr_factor: float = 1.0) -> None:
        for i, (p, g) in enumerate(zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True)):
            self.squares[i] = 0.99 * self.squares[i] + 0.01 * g**2
            p -= lr_factor * self.lr * g / (self.squares[i].sqrt() + 1e-8)


WGAN = [
    "objective={name: wgan, critic_steps: 2, clip_value: 0.02, generator_batch_multiple: 3}",
    "data.dequantize=true",
    "optimizer.generator={name: rmsprop, lr: 5.0e-5}",
    "optimizer.discriminator={name: rmsprop, lr: 1.0e-3}",
]


def literal_wgan(config: Config, networks: Networks, steps: int) -> None:
    """Noise over a gray level on the real images; three times as many fakes in a generator update."""
    generator, discriminator, batches = networks.generator, networks.discriminator, real_batches()
    generator_rms, discriminator_rms = RMSProp(generator, 5e-5), RMSProp(discriminator, 1e-3)
    for step in range(steps):
        for update in (2 * step, 2 * step + 1):
            numbers, real = draws(config, update), next(batches).images.double()
            real = (real + numbers.uniform("dequantization", 16, 1, 16, 16)) / 128 - 1
            fake = generator(numbers.normal("discriminator latents", 16, 8)).detach()
            numbers.seed_layers("discriminator layers")
            scores = discriminator(torch.cat([real, fake]))
            discriminator_rms.step(scores[16:].mean() - scores[:16].mean())
            for parameter in discriminator.parameters():
                parameter.data.clamp_(-0.02, 0.02)
        numbers = draws(config, step)
        fake = generator(numbers.normal("generator latents", 48, 8))
        numbers.seed_layers("frozen discriminator layers")
        generator_rms.step(-discriminator(fake).mean())


HINGE = [
    "objective={name: hinge, r1_weight: 10, critic_steps: 2, critic_batches: reuse}",
    "optimizer.generator={name: rmsprop, lr: 1.0e-3}",
    "optimizer.discriminator={name: rmsprop, lr: 4.0e-3}",
    "optimizer.lr_factor={from: 1, to: 0, from_kimg: 0.032, until_kimg: 0.16, shape: linear}",
    "training.kimg=0.16",
    "training.augment=[color, translation, cutout]",
]


def literal_hinge(config: Config, networks: Networks, steps: int) -> None:
    """Augmented images go into the discriminator's loss and the penalty alike, and both updates."""
    generator, discriminator, batches = networks.generator, networks.discriminator, real_batches()
    generator_rms, discriminator_rms = RMSProp(generator, 1e-3), RMSProp(discriminator, 4e-3)
    augment = Augment(["color", "translation", "cutout"])
    for step in range(steps):
        factor = min(1.0, (160 - 32 * step) / 128)
        real_images = scaled(next(batches))
        for update in (2 * step, 2 * step + 1):
            numbers = draws(config, update)
            fake = generator(numbers.normal("discriminator latents", 16, 8)).detach()
            real = augment(real_images, numbers, "augmented reals").requires_grad_()
            fake = augment(fake, numbers, "augmented fakes")
            numbers.seed_layers("discriminator layers")
            logits = discriminator(torch.cat([real, fake]))
            loss = F.relu(1 - logits[:16]).mean() + F.relu(1 + logits[16:]).mean()
            (slope,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
            discriminator_rms.step(loss + 10 / 2 * slope.square().sum((1, 2, 3)).mean(), factor)
        numbers = draws(config, step)
        fake = generator(numbers.normal("generator latents", 16, 8))
        fake = augment(fake, numbers, "augmented generator fakes")
        numbers.seed_layers("frozen discriminator layers")
        generator_rms.step(-discriminator(fake).mean(), factor)


RELATIVISTIC = [
    "objective={name: rpgan, gamma: 3, critic_steps: 2, generator_batch_multiple: 2}",
    "optimizer.generator={name: rmsprop, lr: 1.0e-3}",
    "optimizer.discriminator={name: rmsprop, lr: 4.0e-3}",
    "data.flip=true",
    "training.augment=[translation]",
]


def literal_relativistic(config: Config, networks: Networks, steps: int) -> None:
    """Pairs with fresh real images in a generator update, each with two fakes, and R1 + R2."""
    generator, discriminator, batches = networks.generator, networks.discriminator, real_batches()
    generator_rms, discriminator_rms = RMSProp(generator, 1e-3), RMSProp(discriminator, 4e-3)
    augment = Augment(["translation"])

    def flipped(images: Tensor, chosen: Tensor) -> Tensor:
        return torch.stack([image.flip(2) if flip else image for image, flip in zip(images, chosen < 0.5, strict=True)])

    for step in range(steps):
        for update in (2 * step, 2 * step + 1):
            numbers = draws(config, update)
            real = flipped(scaled(next(batches)), numbers.uniform("flips", 16))
            fake = generator(numbers.normal("discriminator latents", 16, 8)).detach()
            real = augment(real, numbers, "augmented reals").requires_grad_()
            fake = augment(fake, numbers, "augmented fakes").requires_grad_()
            numbers.seed_layers("discriminator layers")
            logits = discriminator(torch.cat([real, fake]))
            loss = (1 + (logits[16:] - logits[:16]).exp()).log().mean()
            for images in (real, fake):
                (slope,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
                loss = loss + 3 / 2 * slope.square().sum((1, 2, 3)).mean()
            discriminator_rms.step(loss)
        numbers = draws(config, step)
        real = flipped(scaled(next(batches)), numbers.uniform("generator flips", 16))
        real = augment(real, numbers, "augmented generator reals")
        numbers.seed_layers("frozen discriminator layers, reals")
        logits = discriminator(real).detach()
        fake = augment(generator(numbers.normal("generator latents", 32, 8)), numbers, "augmented generator fakes")
        numbers.seed_layers("frozen discriminator layers")
        differences = torch.cat([logits, logits]) - discriminator(fake)
        generator_rms.step((1 + differences.exp()).log().mean())


@pytest.mark.parametrize(
    ("overrides", "literal"),
    [(WGAN, literal_wgan), (HINGE, literal_hinge), (RELATIVISTIC, literal_relativistic)],
    ids=["wgan", "hinge", "relativistic"],
)
def test_a_step_is_the_literal_one(overrides: list[str], literal: Callable[[Config, Networks, int], None]) -> None:
    config = small_config(*overrides)
    step, networks = build_step(config)
    batches = real_batches()
    for number in range(3):
        step.run(lambda: [next(batches)], 2 * number, number)
    wanted = build_networks(config, ALONE.device)
    literal(config, wanted, 3)
    for found, other in ((networks.generator, wanted.generator), (networks.discriminator, wanted.discriminator)):
        values = dict(other.named_parameters())
        for name, parameter in found.named_parameters():
            torch.testing.assert_close(
                parameter, values[name], rtol=1e-8, atol=1e-11, msg=lambda t, n=name: f"{n}: {t}"
            )


@pytest.mark.parametrize("updates", ["sequential", "simultaneous"])
def test_all_weights_are_clipped_after_each_discriminator_update(updates: str) -> None:
    """Those of batch normalization too, which begin at 1; the generator's are left alone."""
    config = small_config(
        f"objective={{name: wgan, updates: {updates}}}", "discriminator={network: dcgan, width: 4}",
        "optimizer.discriminator.lr=0.1",
    )  # fmt: skip
    step, networks = build_step(config)
    batch = [next(real_batches())]
    if updates == "simultaneous":
        step.both_updates(batch, 0)
    else:
        step.discriminator_update(batch, 0)
    parameters = list(networks.discriminator.parameters())
    assert all(parameter.abs().max() == 0.01 for parameter in parameters)
    assert max(parameter.abs().max() for parameter in networks.generator.parameters()) > 0.9
    kept = [parameter.clone() for parameter in parameters]
    if updates == "sequential":
        step.generator_update(batch, 0, 0)
        assert all(torch.equal(*pair) for pair in zip(parameters, kept, strict=True))


def test_the_generator_learns_through_the_augmentation() -> None:
    """Where everything is moved out of sight, nothing is learned: the gradient passes what the discriminator saw."""
    config = small_config("objective={name: hinge}", "training.augment=[cutout]")
    step, networks = build_step(config)

    def cut_everything(images: Tensor, draws: Context, stream: str) -> Tensor:
        return images * 0

    step.gradients("generator", [next(real_batches())], 0, 0)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in networks.generator.parameters())
    step.augment = cut_everything  # type: ignore[assignment]
    step.gradients("generator", [next(real_batches())], 0, 0)
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in networks.generator.parameters())
