"""Batches that are ready in memory, and distgan's step on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.inputs import RealBatch
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.profiling import span
from distgan.training.progress import Progress
from distgan.training.step import Step
from distgan.training.updates import TermSums

# Images, uint8 (N, C, H, W), and labels, int64 (N,); −1 where the networks take none.
Batch = tuple[Tensor, Tensor]


def ready_batches(config: Config, number: int, device: torch.device) -> list[Batch]:
    """Batches of smooth random images, the same for every call; in pinned memory for a GPU."""
    random = torch.Generator().manual_seed(0)
    size, batch = config.image_size, config.training.batch_size
    batches = []
    for _ in range(number):
        coarse = torch.rand(batch, config.channels, 4, 4, generator=random)
        images = (F.interpolate(coarse, size=(size, size), mode="bilinear") * 255).to(torch.uint8)
        labels = torch.randint(config.num_classes or 1, (batch,), generator=random)
        batches.append((images, labels if config.num_classes else labels - 1))
    if device.type != "cuda":
        return batches
    return [(images.pin_memory(), labels.pin_memory()) for images, labels in batches]


class DistganLoop:
    """What distgan does in a step, the average of the generator included, without reading or logging anything.

    The process is to be prepared (`training.process`) before. Without `dropout`, all of its layers are the identity.
    """

    def __init__(
        self, config: Config, distributed: Distributed, batches: Sequence[Batch], dropout: bool = True
    ) -> None:
        self.config = config
        self.networks = build_networks(config, distributed.device)
        for module in (*self.networks.generator.modules(), *self.networks.discriminator.modules()):
            if isinstance(module, nn.Dropout | nn.Dropout2d) and not dropout:
                module.p = 0.0
        self.optimizers = build_optimizers(config.optimizer, self.networks.generator, self.networks.discriminator)
        self.training = Step(config, self.networks, build_objective(config), self.optimizers, distributed)
        self.training.warm_up()
        self.ema, self.progress = ExponentialMovingAverage(self.networks.generator, config.ema), Progress()
        if self.training.graphs is not None:
            self.ema.capture(self.networks.generator, self.training.graphs)
        self._batches: list[RealBatch] = []
        for images, labels in batches:
            parts = zip(images.chunk(config.scale.groups), labels.chunk(config.scale.groups), strict=True)
            groups = [Group(*part) for part in parts]
            self._batches.append([groups[number] for number in self.training.groups.local])
        self._taken = 0

    def step(self) -> TermSums:
        """One step; returns its terms."""
        progress = self.progress
        terms = self.training.run(self._next, progress.discriminator_updates, progress.step)
        images = progress.advance(self.config, self.training.batches_per_step)
        with span("average"):
            self.ema.update(self.networks.generator, progress.images, images)
        return terms

    def _next(self) -> RealBatch:
        self._taken += 1
        return self._batches[(self._taken - 1) % len(self._batches)]
