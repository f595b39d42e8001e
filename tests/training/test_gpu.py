"""What only a GPU can show. Skipped without one; run by hand on a machine that has it."""

from __future__ import annotations

import pytest
import torch

from distgan.config.load import load_config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.process import prepare_process
from distgan.training.step import Step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

DEVICE = torch.device("cuda", 0)

SMALL = ["generator.width=8", "discriminator.width=8", "training.batch_size=32"]


def train_steps(
    preset: str, precision: str, *overrides: str, steps: int = 5
) -> tuple[list[torch.Tensor], dict[str, float]]:
    """Weights and terms after some steps on fixed images on the GPU."""
    config = load_config(preset, [*SMALL, f"training.precision={precision}", *overrides])
    device = DEVICE
    prepare_process(1, device, precision)
    networks = build_networks(config, device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    distributed = Distributed(0, 1, device)
    step = Step(config, networks, build_objective(config), optimizers, distributed)
    step.warm_up()
    images = torch.Generator().manual_seed(0)
    shape = (config.training.batch_size // config.scale.groups, config.channels, config.image_size, config.image_size)
    groups = [torch.randint(0, 256, shape, generator=images, dtype=torch.uint8) for _ in range(config.scale.groups)]
    batch = [Group(group, torch.zeros(len(group), dtype=torch.int64)) for group in groups]
    for number in range(steps):
        terms = step.run(lambda: batch, number * config.objective.critic_steps, number).values
    weights = [
        p.detach().cpu() for network in (networks.generator, networks.discriminator) for p in network.parameters()
    ]
    return weights, {name: float(value) for name, value in terms.items()}


@pytest.mark.parametrize("preset", ["dcgan-bricks", "wgan-gp-faces"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_the_same_steps_give_the_same_bits(preset: str, precision: str) -> None:
    first, terms = train_steps(preset, precision)
    second, _ = train_steps(preset, precision)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.isfinite(torch.tensor(value)) for value in terms.values())


# A graph has its learning rate in float32, where this one is exact.
EXACT_RATES = ("optimizer.generator.lr=0.0009765625", "optimizer.discriminator.lr=0.0009765625")


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("dcgan-bricks", []),
        ("dcgan-bricks", ["scale.groups=2"]),
        ("wgan-gp-faces", ["objective.penalty_every=2"]),
        ("wgan-bricks", []),
        ("cgan-fashion", []),
        ("sngan-cifar", []),
        ("sagan-cifar", []),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_give_the_bits_of_eager_updates(preset: str, changes: list[str], precision: str) -> None:
    eager, wanted = train_steps(preset, precision, *EXACT_RATES, *changes)
    found, terms = train_steps(preset, precision, *EXACT_RATES, *changes, "training.cuda_graphs=on")
    assert all(torch.equal(a, b) for a, b in zip(found, eager, strict=True))
    assert terms == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("graphs", ["off", "on"])
def test_compiled_updates_give_the_numbers_of_eager_ones(graphs: str) -> None:
    changes = ("discriminator.dropout=0", *EXACT_RATES)
    eager, wanted = train_steps("wgan-gp-faces", "float32", *changes)
    settings = ("training.compile=on", f"training.cuda_graphs={graphs}")
    found, terms = train_steps("wgan-gp-faces", "float32", *changes, *settings)
    for a, b in zip(found, eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert terms == pytest.approx(wanted, rel=1e-3, abs=1e-3)
