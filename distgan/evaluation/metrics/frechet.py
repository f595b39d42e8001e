"""The Fréchet distance between two sets of features (FID on Inception's).

Dowson and Landau, "The Fréchet distance between multivariate normal distributions" (1982); for
generated images Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
Equilibrium" (2017).
"""

from __future__ import annotations

import torch
from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.feature_statistics import GaussianStatistics
from distgan.evaluation.metrics.metric import Metric, MetricInputs


class FrechetDistance(Metric):
    """The squared Fréchet distance between normal distributions of the features' mean and covariance; 0 or more."""

    name = "frechet"
    label, inception_label = "fd", "fid"
    needs = ("statistics",)

    def compute(self, inputs: MetricInputs) -> float:
        return frechet_distance(inputs.fake_statistics, inputs.real_statistics)

    @classmethod
    def report_name(cls, extractor: str, samples: int, whole: bool = False) -> str:
        name = super().report_name(extractor, samples, whole)
        return f"{name}_full" if whole and cls.is_inception(extractor) else name


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
