"""Which networks and objectives go together, and the one line that refuses the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from distgan.config.load import load_config
from distgan.config.plugins import DISCRIMINATORS, OBJECTIVES
from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.errors import UserError
from distgan.training.networks import Networks, build_networks, build_objective, check_combination
from distgan.training.optimizers import build_optimizers
from distgan.training.step import Step
from runs import ALONE

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

R1 = "{name: %s, r1_weight: 1}"
FREE_OF_BATCHES = ["{name: wgan_gp}", "{name: rpgan}", R1 % "bce", R1 % "hinge", "{name: hinge, r2_weight: 1}"]
ANY = [
    "{name: rpgan, gamma: 0}",
    "{name: rpgan, gamma: 0, updates: simultaneous}",
    "{name: bce}",
    "{name: hinge}",
    "{name: wgan}",
    "{name: hinge, updates: simultaneous}",
]


SMALL = [
    "image_size=32", "channels=1", "latent_dim=8", "generator={network: dcgan, width: 4}", "training.batch_size=8",
    "data.streams=2", "scale.groups=2", "training.kimg=1", "training.augment=[color, translation, cutout]",
]  # fmt: skip
OBJECTIVE_NAMES = [
    "bce", "hinge", "rpgan", "wgan", "wgan_gp", "bce, r1_weight: 1", "hinge, r1_weight: 1", "bce, r2_weight: 1"
]  # fmt: skip
NORMALIZE_BATCHES = {"dcgan"}
NORMALIZE_WEIGHTS = {"sagan", "sagan_resnet", "sngan"}


@pytest.mark.parametrize("objective", OBJECTIVE_NAMES)
@pytest.mark.parametrize("network", DISCRIMINATORS)
def test_every_network_and_objective_train_or_are_refused(network: str, objective: str) -> None:
    """The step's own numbers, with a penalty through attention and projections among them, are finite."""
    labels = ["num_classes=3", "generator={network: cgan, width: 4}"] if network == "cgan" else []
    config = load_config(
        "wgan-gp-faces",
        [*SMALL, f"discriminator={{network: {network}, width: 8}}", f"objective={{name: {objective}}}", *labels],
    )
    networks = build_networks(config, ALONE.device)
    penalized = objective in ("wgan_gp", "rpgan") or "_weight" in objective
    if (penalized and network in NORMALIZE_BATCHES) or (objective == "wgan" and network in NORMALIZE_WEIGHTS):
        with pytest.raises(UserError, match=r"normalizes .*; use"):
            check_combination(config, networks, build_objective(config))
        return
    check_combination(config, networks, build_objective(config))
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    step = Step(config, networks, build_objective(config), optimizers, ALONE)
    group = Group(torch.zeros(4, 1, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]))
    terms = step.run(lambda: [group, group], 0, 0).values
    assert all(value.isfinite() for value in terms.values())
    assert ("loss/penalty" in terms) == penalized
    for part in (networks.generator, networks.discriminator):
        assert all(parameter.isfinite().all() for parameter in part.parameters())


def test_every_objective_is_in_the_table() -> None:
    assert set(OBJECTIVES) == {name.partition(",")[0] for name in OBJECTIVE_NAMES}


def test_without_spectral_norm_weights_may_be_clipped() -> None:
    overrides = [*SMALL, "objective={name: wgan}", "discriminator={network: sngan, width: 8}"]
    with pytest.raises(UserError, match=r"without spectral norm: discriminator\.spectral_norm=false$"):
        check(load_config("wgan-gp-faces", overrides))
    check(load_config("wgan-gp-faces", [*overrides, "discriminator.spectral_norm=false"]))


class Normalized(nn.Module):
    """A discriminator whose weights have spectral norm 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(3 * 64 * 64, 1)))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits.flatten()


def config(objective: str, network: str = "wgan_gp") -> Config:
    return load_config(
        "wgan-gp-faces", [f"objective={objective}", f"discriminator={{network: {network}}}", "training.kimg=1"]
    )


def check(config: Config, discriminator: nn.Module | None = None) -> None:
    networks = build_networks(config, torch.device("meta"))
    pair = Networks(networks.generator, discriminator or networks.discriminator)
    check_combination(config, pair, build_objective(config))


@pytest.mark.parametrize("objective", ANY + FREE_OF_BATCHES)
def test_every_objective_goes_with_a_discriminator_free_of_batch_statistics(objective: str) -> None:
    check(config(objective))


@pytest.mark.parametrize("objective", ANY)
def test_what_is_not_penalized_goes_with_batch_statistics(objective: str) -> None:
    check(config(objective, "dcgan"))


@pytest.mark.parametrize("objective", FREE_OF_BATCHES)
def test_a_penalized_discriminator_has_no_batch_statistics(objective: str) -> None:
    name = config(objective).objective.name
    keys = {"wgan_gp": "discriminator.network=wgan_gp", "rpgan": "objective.gamma=0"}
    weight = "r2_weight" if "r2" in objective else "r1_weight"
    mend = keys.get(name, f"objective.{weight}=0")
    with pytest.raises(UserError, match=f"normalizes over the batch, which objective.name={name} forbids.*{mend}$"):
        check(config(objective, "dcgan"))


@pytest.mark.parametrize("objective", FREE_OF_BATCHES)
def test_a_penalty_has_a_forward_of_its_own(objective: str) -> None:
    name = config(objective).objective.name
    with pytest.raises(UserError, match=f"simultaneous does not go with objective.name={name}: its gradient penalty"):
        check(config(objective[:-1] + ", updates: simultaneous}"))


@pytest.mark.parametrize("objective", ["bce", "hinge", "rpgan", "wgan", "wgan_gp"])
def test_simultaneous_updates_have_one_discriminator_step(objective: str) -> None:
    with pytest.raises(UserError, match="critic_steps must be 1"):
        config(f"{{name: {objective}, updates: simultaneous, critic_steps: 2}}")


def test_clipping_is_not_undone_by_spectral_norm() -> None:
    with pytest.raises(UserError, match=r"spectral norm, which undoes the clipping of objective\.name=wgan; use"):
        check(config("{name: wgan}"), Normalized())
    for objective in ("{name: hinge}", "{name: wgan_gp}"):
        check(config(objective), Normalized())


@pytest.mark.parametrize("objective", ["bce", "wgan"])
def test_objectives_take_unbounded_logits(objective: str) -> None:
    bounded = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 1), nn.Sigmoid())
    with pytest.raises(UserError, match=rf"ends in a sigmoid, but objective\.name={objective} takes unbounded logits"):
        check(config(f"{{name: {objective}}}"), bounded)
