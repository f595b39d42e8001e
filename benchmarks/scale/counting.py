"""What a preset's run does in a step, counted in its own code: operations, all-reduces, bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn
from torch._C._distributed_c10d import _compute_bucket_assignment_by_size
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.scale.miniature import ALONE, FEW, Miniature
from benchmarks.scale.operators import counted
from benchmarks.scale.run import Run, Update
from benchmarks.scale.stored import Stored
from distgan.config.schema import Config
from distgan.data.index import BLOCK_BYTES
from distgan.evaluation.extractors.extractor import load_extractor
from distgan.evaluation.image_source import CHUNK
from distgan.training.fakes import GeneratedImages

# Images of the data sets that the presets' comments name.
DATA_IMAGES = {"bricks": 40_000, "quickstart": 16_384, "cifar": 50_000, "fashion": 60_000, "faces": 202_599}


def run_of(config: Config, name: str, stored: Stored, data_images: int) -> Run:
    """What a run of this configuration does on a data set of so many images."""
    one, two = Miniature(config, 1), Miniature(config, 2)
    objective = config.objective
    updates = []
    for kind, gradients in one.gradients().items():
        flops, operators = counted(gradients)
        _, more = counted(two.gradients()[kind])
        updates.append(
            Update(
                name=kind,
                count=objective.critic_steps if kind == "critic" else 1,
                flops=flops / FEW,
                operators=more - operators,
                fixed_operators=2 * operators - more,
                buckets=buckets(networks_of(one, kind), 25),
                gpu_buckets=buckets(networks_of(one, kind), 1),
                statistics=statistics_bytes(statistics_of(one, kind)),
            )
        )
    _, whole = counted(one.run)
    inside = sum(update.count * (update.operators + update.fixed_operators) for update in updates)
    generator_flops, generator_operators, extractor_flops, extractor_operators, features = _evaluation(config, one)
    batches = objective.critic_steps if objective.critic_batches == "fresh" else 1
    return Run(
        name=name,
        batch=config.training.batch_size,
        groups=config.scale.groups,
        streams=config.data.streams,
        real_images=batches * config.training.batch_size,
        counted_images=objective.critic_steps * config.training.batch_size,
        updates=tuple(updates),
        step_operators=whole - inside,
        terms=len(one.terms),
        log_every=config.training.log_every,
        budget=config.training.kimg * 1000,
        data_images=data_images,
        image_bytes=stored.image_bytes,
        pixel_bytes=int(np.prod(config.image_shape)),
        block_bytes=BLOCK_BYTES,
        memory_bytes=config.data.memory_mb * 2**20,
        state_bytes=one.state_bytes(),
        every_images=config.evaluation.every_kimg * 1000,
        samples=config.evaluation.samples,
        chunk=CHUNK,
        evaluation_flops=generator_flops,
        extractor_flops=extractor_flops,
        chunk_operators=generator_operators + extractor_operators,
        sums_bytes=8 * (1 + features + features**2),
    )


def data_images_of(preset: str) -> int:
    """Images of the data set that a preset's name says; 50,000 for another one."""
    return next((images for part, images in DATA_IMAGES.items() if part in preset), 50_000)


def networks_of(miniature: Miniature, kind: str) -> list[nn.Module]:
    """Those whose gradients an update adds up, in the order in which data parallelism holds them."""
    networks = miniature.networks
    return {
        "both": [networks.generator, networks.discriminator],
        "critic": [networks.discriminator],
        "generator": [networks.generator],
    }[kind]


def statistics_of(miniature: Miniature, kind: str) -> list[nn.Module]:
    """Those whose batch statistics an update advances: a critic's also those of the generator that it runs."""
    networks = miniature.networks
    return [networks.generator] if kind == "generator" else [networks.generator, networks.discriminator]


def buckets(networks: Sequence[nn.Module], first_mb: int) -> tuple[int, ...]:
    """Bytes of each all-reduce of these networks' gradients, by torch's own division into buckets.

    `World.wrap` leaves a GPU torch's first bucket of 1 MiB, with which it begins sooner; elsewhere it has 25.
    """
    parameters: list[Tensor] = [each for network in networks for each in network.parameters() if each.requires_grad]
    parameters.reverse()
    groups, _ = _compute_bucket_assignment_by_size(parameters, [first_mb * 2**20, 25 * 2**20])
    sizes = [each.numel() * each.element_size() for each in parameters]
    return tuple(sum(sizes[number] for number in group) for group in groups)


def statistics_bytes(networks: Sequence[nn.Module]) -> int:
    """Bytes of the running means and variances of batch normalization."""
    layers = [module for network in networks for module in network.modules() if isinstance(module, _BatchNorm)]
    return sum(b.numel() * b.element_size() for layer in layers for b in layer.buffers() if b.is_floating_point())


def _evaluation(config: Config, miniature: Miniature) -> tuple[float, int, float, int, int]:
    """Operations a sample and operators a chunk, of the generator and of the extractor; its features."""
    few = config.evaluation.model_copy(update={"samples": FEW})
    images = GeneratedImages(
        config.model_copy(update={"evaluation": few}), np.zeros(1, np.int64), ALONE.device, miniature.ema.network
    )
    generator_flops, generator_operators = counted(lambda: images.chunk(0))
    extractor = load_extractor("fd_lite0")
    sample = images.chunk(0)
    extractor_flops, extractor_operators = counted(lambda: extractor(sample))
    return (
        generator_flops / FEW,
        generator_operators,
        extractor_flops / FEW,
        extractor_operators,
        extractor.dimension,
    )
