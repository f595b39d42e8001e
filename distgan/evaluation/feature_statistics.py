"""Mean and covariance of features, from sums that any number of workers can fill."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distgan.distributed import Distributed
from distgan.errors import UserError


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """Mean and covariance of a set of features.

    mean: (d,) float64 on the CPU.
    covariance: (d, d) float64 on the CPU, symmetric, normalized by `count - 1`.
    count: number of features; 0 where that is not known.
    """

    mean: Tensor
    covariance: Tensor
    count: int


@dataclass
class FeatureSums:
    """Running sums over features, float64 on one device. The sums of several ranks add up to joint statistics.

    count: number of features n. total: Σx, (d,). outer: Σxxᵀ, (d, d).

    The sums are not shifted by a mean. Float64 loses about (3e-8 · mean / deviation)² of a variance to that, no more
    than rounding the features to float32 has already cost it.
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def zeros(cls, dimension: int, device: torch.device | str = "cpu") -> FeatureSums:
        total = torch.zeros(dimension, dtype=torch.float64, device=device)
        outer = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)
        return cls(0, total, outer)

    def update(self, features: Tensor) -> None:
        """Adds `features`, (n, d) of any floating type and on any device."""
        assert features.ndim == 2, f"features must be (n, d), not {tuple(features.shape)}"
        assert features.shape[1] == len(self.total), f"{features.shape[1]} features, sums of {len(self.total)}"
        features = features.detach().to(self.total)
        self.count += len(features)
        self.total += features.sum(dim=0)
        self.outer.addmm_(features.T, features)

    def __add__(self, other: FeatureSums) -> FeatureSums:
        return FeatureSums(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def to_tensor(self) -> Tensor:
        """All sums in one tensor of 1 + d + d² numbers: the elementwise sum over ranks is the joint sums."""
        count = self.total.new_tensor([self.count])
        return torch.cat([count, self.total, self.outer.flatten()])

    @classmethod
    def from_tensor(cls, flat: Tensor, dimension: int) -> FeatureSums:
        """The inverse of `to_tensor`."""
        flat = flat.double()
        total, outer = flat[1 : 1 + dimension], flat[1 + dimension :]
        return cls(round(flat[0].item()), total.clone(), outer.reshape(dimension, dimension).clone())

    def all_reduced(self, distributed: Distributed) -> FeatureSums:
        """The sums over all ranks. Collective."""
        return self.from_tensor(distributed.all_reduce(self.to_tensor()), len(self.total))

    def statistics(self) -> GaussianStatistics:
        """Mean and covariance of all features added.

        Raises UserError for fewer than 2 features, and where a feature was not finite; after an all-reduce on every
        rank alike.
        """
        if self.count < 2:
            raise UserError(f"a Fréchet distance needs at least 2 images, not {self.count}: evaluate on more samples")
        total, outer = self.total.cpu(), self.outer.cpu()
        if not (total.isfinite().all() and outer.isfinite().all()):
            raise UserError(
                "some image features are not finite numbers, so there is no Fréchet distance: "
                "the generator has diverged; start a new run with a lower learning rate"
            )
        mean = total / self.count
        covariance = (outer - torch.outer(total, mean)) / (self.count - 1)
        return GaussianStatistics(mean, (covariance + covariance.T) / 2, self.count)
