"""Diversity: the spread of samples relative to real images, in the features of the Fréchet distance."""

from __future__ import annotations

import math

from distgan.evaluation.feature_statistics import GaussianStatistics


def diversity(generated: GaussianStatistics, real: GaussianStatistics) -> float:
    """Root mean square distance of two samples over that of two real images: √(tr Σ_generated / tr Σ_real).

    The mean of |x − y|² over pairs of different features is 2 tr Σ. 0: all samples are equal. 1: they differ as much
    as real images. Above 1: they differ more, as noise does. 1 if all real images are equal.
    """
    spread = float(real.covariance.trace())
    return math.sqrt(max(float(generated.covariance.trace()), 0.0) / spread) if spread > 0 else 1.0
