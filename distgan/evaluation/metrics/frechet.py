"""The Fréchet distance between two sets of features, from sums that any number of workers can fill.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions" (1982); as a measure of
generated images Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium" (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distgan.errors import UserError


@dataclass(frozen=True, eq=False)
class GaussianStatistics:
    """Mean and covariance of a set of features.

    mean: (d,) float64 on the CPU.
    covariance: (d, d) float64 on the CPU, symmetric, normalised by `count - 1`.
    count: how many features they were taken from; 0 where that is not known.
    """

    mean: Tensor
    covariance: Tensor
    count: int


@dataclass
class FeatureSums:
    """Running sums over features, all in float64 on one device: what ranks add up to get joint statistics.

    count: number of features n. total: Σx, (d,). outer: Σxxᵀ, (d, d).

    The sums are not shifted by a mean. Float64 loses about (3e-8 · mean / deviation)² of a variance to that,
    no more than rounding the features themselves to float32 has cost it; and several ranks' sums add up.
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
        """Count in `features`, (n, d) of any floating type and on any device."""
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

    def statistics(self) -> GaussianStatistics:
        """Mean and covariance of everything counted in.

        Raises UserError for fewer than 2 features, and where any feature was not finite. Such a value shows
        in the sums, so that after an all-reduce every rank raises alike.
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


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """`|μa − μb|² + tr(Σa + Σb − 2 (Σa Σb)^½)`, the squared 2-Wasserstein distance of two Gaussians.

    With factors `Σ = L Lᵀ` from symmetric eigen-decompositions, the trace of the root is the sum of the
    singular values of `Laᵀ Lb`. Unlike the square roots of the eigenvalues of `Laᵀ Σb La`, these keep their
    small ones exact: two equal sets of nearly singular covariance are 0 apart, not 1e-5. Never negative.

    Raises UserError where the two were taken from features of different dimension.
    """
    if len(a.mean) != len(b.mean):
        raise UserError(
            f"statistics of {len(a.mean)} and of {len(b.mean)} features cannot be compared: "
            "compute both with the same feature extractor"
        )
    left, right = covariance_factor(a.covariance), covariance_factor(b.covariance)
    traces = float(left.square().sum() + right.square().sum())
    cross = float(torch.linalg.svdvals(left.T @ right).sum())
    distance = float((a.mean - b.mean).square().sum()) + traces - 2 * cross
    rounding = 10 * len(a.mean) * torch.finfo(torch.float64).eps * traces
    assert distance >= -rounding, f"a Fréchet distance of {distance}, beyond rounding ({rounding})"
    return max(distance, 0.0)


def covariance_factor(covariance: Tensor) -> Tensor:
    """`L`, (d, rank), with `L Lᵀ` = covariance, less the eigenvalues below d·eps·λmax, which are rounding."""
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    smallest = len(covariance) * torch.finfo(torch.float64).eps * eigenvalues[-1]
    kept = eigenvalues > smallest.clamp_min(0)
    factor: Tensor = eigenvectors[:, kept] * eigenvalues[kept].sqrt()
    return factor
