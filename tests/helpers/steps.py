"""Steps of small networks on fixed batches: what an update computes, and the state after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.losses import Objective
from distgan.training.inputs import RealBatch
from distgan.training.networks import Networks, build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.prepared import GraphBackend
from distgan.training.step import Step

ALONE = Distributed(0, 1, torch.device("cpu"))

# Buffers that every update advances: of batch normalization, and the power iteration's vectors.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "_u", "_v")


def build_step(
    config: Config,
    distributed: Distributed = ALONE,
    graph_backend: GraphBackend | None = None,
    objective: Objective | None = None,
) -> tuple[Step, Networks]:
    networks = build_networks(config, distributed.device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    objective = objective or build_objective(config)
    return Step(config, networks, objective, optimizers, distributed, graph_backend), networks


def real_group(config: Config, batch: int, group: int) -> Tensor:
    """The uint8 images of one group of one batch, the same in every process."""
    shape = (config.training.batch_size // config.scale.groups, config.channels, config.image_size, config.image_size)
    random = torch.Generator().manual_seed(1000 * batch + group)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)


def labeled_group(config: Config, batch: int, group: int) -> Group:
    """The same images with labels, where the networks take any."""
    images, random = real_group(config, batch, group), torch.Generator().manual_seed(batch + 1000 * group)
    classes = config.num_classes or 1
    return Group(images, torch.randint(classes, (len(images),), generator=random))


class Batches:
    """Fixed batches, one a call; counts the calls."""

    def __init__(self, config: Config, groups: range) -> None:
        self.config, self.groups, self.taken = config, groups, 0

    def __call__(self) -> RealBatch:
        self.taken += 1
        return [labeled_group(self.config, self.taken, group) for group in self.groups]


def state_of(networks: Networks) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    parts = {"generator": networks.generator, "discriminator": networks.discriminator}
    return {f"{part}.{k}": v.clone() for part, network in parts.items() for k, v in network.state_dict().items()}


def gradients_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def train_steps(step: Step, batches: Batches, first: int, count: int) -> list[dict[str, Tensor]]:
    critic_steps = step.config.objective.critic_steps
    return [step.run(batches, number * critic_steps, number).values for number in range(first, first + count)]


def measure_case(config: Config, distributed: Distributed) -> dict[str, dict[str, Tensor]]:
    step, networks = build_step(config, distributed)
    initial = state_of(networks)
    step.warm_up()
    found = {"warm-up changed": {k: v for k, v in state_of(networks).items() if not torch.equal(v, initial[k])}}
    assert not gradients_of(networks.generator)
    assert not gradients_of(networks.discriminator)

    batches = Batches(config, step.groups.local)
    if step.simultaneous:
        step.gradients("both", batches(), 0, 0)
    else:
        step.gradients("discriminator", batches(), 0, 0)
        step.gradients("generator", batches(), 0, 0)
    found["generator gradients"] = gradients_of(networks.generator)
    found["discriminator gradients"] = gradients_of(networks.discriminator)
    statistics = {k: v for k, v in state_of(networks).items() if k.rpartition(".")[2] in STATISTICS}
    if config.generator.network != "r3gan":  # the only one without any
        found["statistics"] = statistics
    terms = train_steps(step, batches, 0, 3)[-1]
    found["terms"] = {name: distributed.all_reduce(value.clone()) for name, value in terms.items()}
    found["state after 3 steps"] = state_of(networks)
    return found


def largest_difference(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest difference of any number, relative to the largest number."""
    assert found.keys() == wanted.keys()
    assert wanted
    scale = max(float(value.abs().max()) for value in wanted.values())
    assert scale > 0
    return max(float((found[name] - value).abs().max()) for name, value in wanted.items()) / scale
