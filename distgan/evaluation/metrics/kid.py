"""The kernel distance between two sets of features (KID).

Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs" (2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.metrics.metric import MeanStd, Metric, MetricInputs

SUBSETS, SUBSET_SIZE = 100, 1000


class KernelDistance(Metric):
    """The squared maximum mean discrepancy over subsets, unbiased and so at times below 0."""

    name = "kernel"
    aliases = ("kid",)
    label, inception_label = "kd", "kid"

    def compute(self, inputs: MetricInputs) -> MeanStd:
        return kernel_distance(inputs.real_features, inputs.fake_features)


def kernel_distance(
    real: Tensor, fake: Tensor, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> MeanStd:
    """Between features (N, d) and (M, d), with the kernel `(x·y / d + 1)³` of the paper.

    `seed` draws the subsets, each without repetition; a subset has at most as many features as the smaller set. Kernels
    are computed in the features' own precision, their sums in float64.

    Raises UserError for fewer than 2 features in either set.
    """
    size = min(subset_size, len(real), len(fake))
    if size < 2:
        raise UserError(f"a kernel distance needs at least 2 images in each set, not {size}: evaluate on more samples")
    random = torch.Generator().manual_seed(seed)

    def drawn(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=random)[:size].to(features.device)]

    values = torch.stack([_unbiased_mmd(drawn(real), drawn(fake)) for _ in range(subsets)])
    return MeanStd(float(values.mean()), float(values.std(correction=0)))


def _unbiased_mmd(one: Tensor, other: Tensor) -> Tensor:
    """MMD² of two sets of m features, without pairs of a feature with itself."""
    pairs = len(one) * (len(one) - 1)
    within = [
        (kernel.sum(dtype=torch.float64) - kernel.diagonal().sum(dtype=torch.float64)) / pairs
        for kernel in (_kernel(one, one), _kernel(other, other))
    ]
    return within[0] + within[1] - 2 * _kernel(one, other).mean(dtype=torch.float64)


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return torch.mm(one, other.T).div_(one.shape[1]).add_(1).pow_(3)
