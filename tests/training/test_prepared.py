"""Updates on fixed memory give the bits of eager ones, as graphs too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distgan.config.load import load_config
from distgan.config.schema import Config
from tests.helpers.steps import Batches, build_step, state_of, train_steps
from tests.helpers.tape import TapeGraphs

SMALL = (
    "generator.width=4", "discriminator.width=4", "training.batch_size=8", "data.streams=4", "scale.groups=2",
    "latent_dim=8", "image_size=32", "training.cuda_graphs=on",
    # A graph has its learning rate in float32.
    "optimizer.generator.lr=0.0009765625", "optimizer.discriminator.lr=0.0009765625",
)  # fmt: skip


def small(preset: str, *overrides: str) -> Config:
    return load_config(preset, [*SMALL, *overrides])


CASES = {
    "simultaneous, dropout": small("dcgan-bricks"),
    "clipped weights": small("wgan-bricks", "objective.critic_steps=2"),
    "gradient penalty, dropout": small("wgan-gp-faces", "data.flip=true", "data.dequantize=true"),
    "lazy penalty": small("wgan-gp-faces", "objective.penalty_every=3", "objective.critic_steps=2"),
    "labels": small("cgan-fashion"),
    "spectral norm": small("sngan-cifar"),
    "pairs, schedules, augmentation": small(
        "quickstart",
        "discriminator.network=wgan_gp",
        "objective={name: rpgan, gamma: {from: 2, to: 0.5, until_kimg: 0.05}, penalty_every: 2}",
        "training.augment=[color, translation, cutout]",
        "training.augment_probability={from: 0, to: 1, until_kimg: 0.06}",
        "optimizer.generator.lr={from: 1e-3, to: 1e-4, until_kimg: 0.05}",
    ),
    "scheduled decay, clipped gradients": small(
        "quickstart",
        "optimizer.generator.beta2={from: 0.9, to: 0.99, until_kimg: 0.05}",
        "optimizer.discriminator.max_grad_norm=0.1",
    ),
    "bfloat16": small("wgan-gp-faces", "training.precision=bfloat16"),
}


def trained(
    config: Config, graphs: TapeGraphs | None, steps: int = 4
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    step, networks = build_step(config, graph_backend=graphs)
    if graphs is not None:
        step.warm_up()
    terms = train_steps(step, Batches(config, step.groups.local), 0, steps)
    return state_of(networks), terms


@pytest.mark.parametrize("name", CASES)
def test_graphs_give_the_bits_of_eager_updates(name: str) -> None:
    torch.set_num_threads(1)
    config = CASES[name]
    graphs = TapeGraphs()
    state, terms = trained(config, graphs)
    wanted, wanted_terms = trained(config, None)
    assert graphs.captured >= 2
    assert [sorted(row) for row in terms] == [sorted(row) for row in wanted_terms]
    for row, wanted_row in zip(terms, wanted_terms, strict=True):
        for key, value in row.items():
            torch.testing.assert_close(value, wanted_row[key], rtol=1e-6, atol=1e-7, msg=key)
    for key, value in wanted.items():
        assert torch.equal(state[key], value), key
