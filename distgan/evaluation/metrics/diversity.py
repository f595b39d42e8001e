"""How far samples lie apart from one another, in the features that the Fréchet distance is taken of."""

from __future__ import annotations

import math

from distgan.evaluation.feature_statistics import GaussianStatistics


def diversity(generated: GaussianStatistics, real: GaussianStatistics) -> float:
    """Root mean square distance of two samples over that of two real images: √(tr Σ_generated / tr Σ_real).

    The mean of |x − y|² over pairs of different features is 2 tr Σ. 0: all samples are alike; 1: they lie as far
    apart as real images do; more: farther, as noise does. 1 where the real images are all alike.
    """
    spread = float(real.covariance.trace())
    return math.sqrt(max(float(generated.covariance.trace()), 0.0) / spread) if spread > 0 else 1.0
