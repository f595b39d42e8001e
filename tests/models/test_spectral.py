"""Spectral normalization: what the weights become, one power iteration an update, and the average's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized

from distgan.config.load import load_config
from distgan.config.schema import Config, EmaConfig
from distgan.distributed import Distributed
from distgan.models import sagan, sagan_resnet
from distgan.training.ema import ExponentialMovingAverage
from gloo import run_workers
from steps import Batches, build_step, largest_difference, measure_case, state_of

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

COMMON = ["latent_dim=8", "training.batch_size=8", "data.streams=4", "scale.groups=4", "training.precision=float64"]
PLAIN = ["image_size=16", "generator={network: sagan, width: 8}", "discriminator={network: sagan, width: 8}"]
RESIDUAL = [
    "image_size=32",
    "num_classes=3",
    "generator={network: sagan_resnet, width: 8}",
    "discriminator={network: sagan_resnet, width: 8}",
]
CASES = {
    "plain, sequential": ("quickstart", [*PLAIN, "objective.updates=sequential"]),
    "plain, simultaneous": ("quickstart", PLAIN),
    "residual with labels, penalized": ("wgan-gp-faces", [*RESIDUAL, "objective.critic_steps=2"]),
}


def small_config(case: str, *overrides: str) -> Config:
    preset, changes = CASES[case]
    return load_config(preset, [*COMMON, *changes, *overrides])


def normalized(network: nn.Module) -> Iterator[tuple[str, nn.Module, _SpectralNorm, Tensor]]:
    """(name, layer, its normalization, the weight that is learned) of each normalized layer."""
    for name, layer in network.named_modules():
        if is_parametrized(layer, "weight"):
            (norm,) = layer.parametrizations.weight
            yield name, layer, norm, layer.parametrizations.weight.original


def matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """A weight with its outputs as rows, as Miyato et al. 2018 reshape it."""
    return (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)


def spectral_norms(network: nn.Module) -> dict[str, float]:
    """The largest singular value of each weight that is used, by SVD."""
    with torch.no_grad():
        return {
            name: float(torch.linalg.matrix_norm(matrix(layer, layer.weight), 2))
            for name, layer, _, _ in normalized(network)
        }


def vectors(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers() if name.endswith(("._u", "._v"))}


@pytest.mark.parametrize(
    ("network", "options", "inputs"),
    [
        (sagan.Generator, {"image_size": 128, "latent_dim": 128}, (1, 128)),
        (sagan.Discriminator, {"image_size": 128}, (1, 3, 128, 128)),
        (sagan_resnet.Generator, {"image_size": 32, "latent_dim": 128, "num_classes": 10, "width": 64}, (1, 128)),
        (sagan_resnet.Discriminator, {"image_size": 32, "num_classes": 10}, (1, 3, 32, 32)),
    ],
)
def test_every_normalized_weight_has_norm_one_after_50_forwards(
    network: type[nn.Module], options: dict[str, int], inputs: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    built = network(channels=3, **options)
    labels = (torch.tensor([1]),) if "num_classes" in options else ()
    with torch.no_grad():
        for _ in range(50):
            built(torch.randn(inputs), *labels)
    found = spectral_norms(built)
    layers = [name for name, layer in built.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert set(layers) <= found.keys()
    assert found == {name: pytest.approx(1, rel=0.05) for name in found}


def iterated(network: nn.Module) -> dict[str, Tensor]:
    """One power iteration from the vectors as they are, literally: u ← Wv/|Wv|, v ← Wᵀu/|Wᵀu|."""
    found = {}
    for name, layer, norm, weight in normalized(network):
        rows = matrix(layer, weight.detach())
        u = F.normalize(rows @ norm._v, dim=0)
        found[f"{name}.parametrizations.weight.0._u"] = u
        found[f"{name}.parametrizations.weight.0._v"] = F.normalize(rows.T @ u, dim=0)
    return found


@pytest.mark.parametrize("groups", [1, 4])
def test_one_iteration_an_update(groups: int) -> None:
    """However many groups and forwards an update has; the frozen discriminator's vectors stay."""
    config = small_config("plain, sequential", f"scale.groups={groups}")
    step, networks = build_step(config)
    batches = Batches(config, step.groups.local)
    for number in range(2):
        wanted = {part: iterated(getattr(networks, part)) for part in ("generator", "discriminator")}
        step.discriminator_update(batches(), number)
        for part, values in wanted.items():
            found = vectors(getattr(networks, part))
            assert found.keys() == values.keys()
            torch.testing.assert_close(found, values, rtol=1e-12, atol=1e-12)
        wanted = {"generator": iterated(networks.generator), "discriminator": vectors(networks.discriminator)}
        step.generator_update(batches(), number, 0)
        for part, values in wanted.items():
            torch.testing.assert_close(vectors(getattr(networks, part)), values, rtol=1e-12, atol=1e-12)


def measure(distributed: Distributed) -> dict[str, dict[str, dict[str, Tensor]]]:
    return {case: measure_case(small_config(case), distributed) for case in CASES}


@pytest.mark.slow
def test_a_step_is_the_same_for_every_number_of_workers() -> None:
    (alone,) = run_workers(measure, 1)
    for size in (2, 3):
        ranks = run_workers(measure, size)
        for case, quantities in alone.items():
            for rank in ranks:
                assert rank[case]["warm-up changed"] == {}
            for quantity in ("generator gradients", "discriminator gradients", "terms", "state after 3 steps"):
                for rank in ranks:
                    assert largest_difference(rank[case][quantity], quantities[quantity]) < 1e-10, (case, quantity)
            assert any(name.endswith("._u") for name in quantities["state after 3 steps"])


def test_a_resumed_step_has_the_same_bits() -> None:
    """The vectors are part of the state: from a state dict the next step is the same."""
    config = small_config("residual with labels, penalized")
    step, networks = build_step(config)
    batches = Batches(config, step.groups.local)
    step.run(batches, 0, 0)
    again, others = build_step(config)
    others.generator.load_state_dict(networks.generator.state_dict())
    others.discriminator.load_state_dict(networks.discriminator.state_dict())
    again.optimizers.generator.load_state_dict(copy.deepcopy(step.optimizers.generator.state_dict()))
    again.optimizers.discriminator.load_state_dict(copy.deepcopy(step.optimizers.discriminator.state_dict()))
    following = Batches(config, step.groups.local)
    following.taken = batches.taken
    step.run(batches, 2, 1)
    again.run(following, 2, 1)
    assert largest_difference(state_of(others), state_of(networks)) == 0


def wander(generator: nn.Module, random: torch.Generator) -> None:
    """Moves the learned weights as training would, only faster: their first singular vectors change."""
    with torch.no_grad():
        for _, _, _, weight in normalized(generator):
            weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=random, dtype=weight.dtype)


def test_the_average_is_normalized_by_its_own_power_iteration() -> None:
    config = small_config("plain, sequential")
    step, networks = build_step(config)
    generator, random = networks.generator, torch.Generator().manual_seed(0)
    ema = ExponentialMovingAverage(generator, EmaConfig(half_life_kimg=0.08, ramp_up=None))
    batches = Batches(config, step.groups.local)
    for number in range(60):
        step.generator_update(batches(), number, 0) if number % 20 == 0 else wander(generator, random)
        step._generator_statistics.begin()
        ema.update(generator, 8 * (number + 1), 8)
    found = spectral_norms(ema.network)
    assert found == {name: pytest.approx(1, rel=0.05) for name in found}
    lengths = [float(vector.norm()) for vector in vectors(ema.network).values()]
    assert lengths == pytest.approx([1.0] * len(lengths))
    # Other weights and vectors than the generator's, and forwards do not move them.
    assert not torch.equal(ema.network.layers[0].weight, generator.layers[0].weight)
    before = vectors(ema.network)
    images = ema.network(torch.randn(2, 8, dtype=torch.float64))
    assert images.isfinite().all()
    torch.testing.assert_close(vectors(ema.network), before, rtol=0, atol=0)


def test_an_average_without_memory_is_the_generator() -> None:
    _, networks = build_step(small_config("plain, sequential"))
    ema = ExponentialMovingAverage(networks.generator, EmaConfig(half_life_kimg=0))
    wander(networks.generator, torch.Generator().manual_seed(0))
    ema.update(networks.generator, 8, 8)
    for name, value in networks.generator.named_parameters():
        torch.testing.assert_close(ema.network.get_parameter(name), value, rtol=1e-12, atol=1e-12)


def test_copies_and_state_dicts_are_whole() -> None:
    config = small_config("residual with labels, penalized")
    _, networks = build_step(config)
    for network, inputs in (
        (networks.generator, torch.randn(2, 8, dtype=torch.float64)),
        (networks.discriminator, torch.randn(2, 3, 32, 32, dtype=torch.float64)),
    ):
        network.eval()
        labels = torch.tensor([0, 2])
        wanted = network(inputs, labels)
        twin = copy.deepcopy(network)
        assert torch.equal(twin(inputs, labels), wanted)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(0.1)
        assert not torch.equal(twin(inputs, labels), wanted)
        assert torch.equal(network(inputs, labels), wanted)
        twin.load_state_dict(network.state_dict())
        assert torch.equal(twin(inputs, labels), wanted)
