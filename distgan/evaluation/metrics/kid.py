"""The kernel distance between two sets of features (KID).

Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs" (2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distgan.errors import UserError

SUBSETS, SUBSET_SIZE = 100, 1000


@dataclass(frozen=True)
class KernelDistance:
    """The squared maximum mean discrepancy, unbiased and so at times below 0: mean and deviation over subsets."""

    mean: float
    std: float


def kernel_distance(
    real: Tensor, fake: Tensor, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> KernelDistance:
    """Between features (N, d) and (M, d), with the kernel `(x·y / d + 1)³` of the paper.

    Subsets are drawn by `seed` without repetition inside one; `subset_size` is at most the smaller set. Kernels are
    taken in the features' own precision, their sums in float64.

    Raises UserError for fewer than 2 features in either set.
    """
    size = min(subset_size, len(real), len(fake))
    if size < 2:
        raise UserError(f"a kernel distance needs at least 2 images in each set, not {size}: evaluate on more samples")
    random = torch.Generator().manual_seed(seed)

    def drawn(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=random)[:size].to(features.device)]

    values = torch.stack([_unbiased_mmd(drawn(real), drawn(fake)) for _ in range(subsets)])
    return KernelDistance(float(values.mean()), float(values.std(correction=0)))


def _unbiased_mmd(one: Tensor, other: Tensor) -> Tensor:
    """MMD² of two sets of m features, pairs of a feature with itself left out."""
    pairs = len(one) * (len(one) - 1)
    within = [
        (kernel.sum(dtype=torch.float64) - kernel.diagonal().sum(dtype=torch.float64)) / pairs
        for kernel in (_kernel(one, one), _kernel(other, other))
    ]
    return within[0] + within[1] - 2 * _kernel(one, other).mean(dtype=torch.float64)


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return torch.mm(one, other.T).div_(one.shape[1]).add_(1).pow_(3)
