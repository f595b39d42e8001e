"""The context of a loss: its update, and random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distgan.config.schedule import Schedule, Variable, value_at
from distgan.losses.rng import derive_seed


@dataclass(frozen=True)
class Context:
    """One group of one update.

    Attributes:
        update: number of this update from 0, counted for each network separately.
        kimg: thousands of real images that the discriminator has been trained on before this update.
        seed: of the run.
        group: number of this group of the batch.
        device: where logits and images are.
        dtype: of logits, and of the numbers that `uniform` and `normal` draw.
    """

    update: int
    kimg: float
    seed: int
    group: int
    device: torch.device
    dtype: torch.dtype

    def value(self, number: float | Schedule | Variable) -> float:
        """A number, or the value of a schedule or variable at this update."""
        return value_at(number, self.kimg)

    def every(self, count: int) -> bool:
        """Whether this update is one of every `count`: those of number 0, `count`, 2 `count` and so on."""
        return self.update % count == 0

    def rng(self, name: str) -> torch.Generator:
        """A random stream of any name, on the CPU and at its beginning at every call.

        Its numbers depend on the run's seed, the name, the update and the group only. `losses.rng` lists the names
        that have a number; all others are hashed.
        """
        return torch.Generator().manual_seed(derive_seed(self.seed, name, self.update, self.group))

    def uniform(self, name: str, *shape: int) -> Tensor:
        """The first numbers of a stream, uniform in [0, 1). Drawn on the CPU, so the same on every device."""
        return self._on_device(torch.rand(shape, generator=self.rng(name), pin_memory=self._pinned))

    def normal(self, name: str, *shape: int) -> Tensor:
        """The first numbers of a stream, standard normal. Drawn on the CPU, so the same on every device."""
        return self._on_device(torch.randn(shape, generator=self.rng(name), pin_memory=self._pinned))

    def seed_layers(self, name: str) -> None:
        """Seeds torch's global generators, which layers such as dropout draw from.

        As `torch.manual_seed`, which spends 2 ms a call on noting stack traces for devices that are not in use.
        """
        seed = derive_seed(self.seed, name, self.update, self.group)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(seed)

    @property
    def _pinned(self) -> bool:
        """Whether numbers are drawn into memory from which a device copies while the host goes on."""
        return self.device.type == "cuda"

    def _on_device(self, numbers: Tensor) -> Tensor:
        return numbers.to(self.device, self.dtype, non_blocking=True)
