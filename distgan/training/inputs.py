"""What a step works on: this worker's groups of a batch, their images, labels, latents and contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.losses.context import Context
from distgan.training.networks import DTYPES, Labels

# This worker's groups of a batch: real images with their labels.
RealBatch = Sequence[Group]


@dataclass(frozen=True)
class Groups:
    """The groups of a batch that a worker runs."""

    total: int
    distributed: Distributed

    @property
    def local(self) -> range:
        """Numbers of this worker's groups: consecutive, and at least one where workers are at most groups."""
        rank, size = self.distributed.rank, self.distributed.size
        return range(rank * self.total // size, (rank + 1) * self.total // size)

    @property
    def loss_weight(self) -> float:
        """The weight of a group's mean loss, with which the average over workers is the mean over groups."""
        return self.distributed.size / self.total


class Inputs:
    """Images, labels and latents on the device, of the configuration's types and shapes.

    Attributes:
        dtype: of images, latents and losses.
        group_size: real images in a group.
    """

    def __init__(self, config: Config, distributed: Distributed, groups: Groups) -> None:
        self.dtype = DTYPES[config.training.precision]
        self.group_size = config.training.batch_size // config.scale.groups
        self._config, self._device, self._groups = config, distributed.device, groups
        self._memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format

    def blank(self) -> RealBatch:
        """A batch of black images with the label 0, on the CPU."""
        size, channels = self._config.image_size, self._config.channels
        images = torch.zeros((self.group_size, size, size, channels), dtype=torch.uint8).permute(0, 3, 1, 2)
        return [Group(images, torch.zeros(self.group_size, dtype=torch.int64)) for _ in self._groups.local]

    def contexts(self, update: int, images: int) -> list[Context]:
        """The contexts of this worker's groups."""
        return [
            Context(update, images / 1000, self._config.seed, group, self._device, self.dtype)
            for group in self._groups.local
        ]

    def real(self, images: Tensor, context: Context, of: str = "") -> Tensor:
        """uint8 to [-1, 1] on the device, dequantized and half of them flipped where the configuration says so.

        `of` is the beginning of the names of the random streams.
        """
        real = images.to(self._device, non_blocking=True).to(self.dtype, memory_format=self._memory_format)
        if self._config.data.dequantize:
            real = (real + context.uniform(f"{of}dequantization", *real.shape)) / 128 - 1
        else:
            real = real / 127.5 - 1
        if self._config.data.flip:
            chosen = context.uniform(f"{of}flips", len(real), 1, 1, 1) < 0.5
            real = torch.where(chosen, real.flip(3), real)
        return real

    def labels(self, part: Group) -> Labels:
        """The labels of a group's images, where the networks take any."""
        return () if self._config.num_classes is None else (part.labels.to(self._device, non_blocking=True),)

    def latents(self, context: Context, stream: str, multiple: int = 1) -> Tensor:
        return context.normal(stream, multiple * self.group_size, self._config.latent_dim)
