"""MIND, the Monge Inception Distance: the sliced Wasserstein distance of two sets of features.

Berthet et al., "MIND: Monge Inception Distance for Generative Models Evaluation" (arXiv 2605.06797, 2026).
"""

from __future__ import annotations

import torch
from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.metrics.metric import Metric, MetricInputs

DIRECTIONS = 1000

_AT_ONCE = 100


class Mind(Metric):
    """The mean squared distance of sorted projections on random directions, times three times the dimension."""

    name = "mind"

    def compute(self, inputs: MetricInputs) -> float:
        return sliced_distance(inputs.real_features, inputs.fake_features)


def sliced_distance(real: Tensor, fake: Tensor, directions: int = DIRECTIONS, seed: int = 0) -> float:
    """`3d / (n M) · Σᵢ Σⱼ (sort(X uᵢ)ⱼ − sort(Y uᵢ)ⱼ)²` of n features each, (n, d), on M unit vectors uᵢ; 0 or more.

    The features are not normalized. `seed` draws the directions, uniform on the sphere, and n of the larger set where
    the sets differ in size. In one dimension sorted order is the best transport, so each direction adds its exact
    squared 2-Wasserstein distance; the factor 3d is the paper's. Projections are in float32, their sum in float64.

    Raises UserError for fewer than 2 features in either set.
    """
    count, dimension = min(len(real), len(fake)), real.shape[1]
    if count < 2:
        raise UserError(f"a sliced distance needs at least 2 images in each set, not {count}: evaluate on more samples")
    random = torch.Generator().manual_seed(seed)
    vectors = torch.randn(directions, dimension, generator=random)
    vectors = (vectors / vectors.norm(dim=1, keepdim=True)).to(real)
    sides = [_drawn(features, count, random) for features in (real, fake)]
    total = 0.0
    for some in torch.split(vectors, _AT_ONCE):
        one, other = ((some @ side.T).sort(dim=1).values for side in sides)
        total += float((one - other).square().sum(dtype=torch.float64))
    return 3 * dimension * total / (count * directions)


def _drawn(features: Tensor, count: int, random: torch.Generator) -> Tensor:
    """`count` of the features (N, d), without repetition; all of them, in their order, if there are no more."""
    if len(features) == count:
        return features
    return features[torch.randperm(len(features), generator=random)[:count].to(features.device)]
