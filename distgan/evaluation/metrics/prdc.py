"""Fidelity and diversity apart: whether samples lie where real images are, and whether they reach all of them.

Improved precision and recall: Kynkäänniemi et al. (2019). Density and coverage: Naeem et al., "Reliable Fidelity and
Diversity Metrics for Generative Models" (2020). A feature on a ball's surface is inside for the former's authors and
outside in the latter's code, so that the density of equal sets is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from distgan.errors import UserError

# The papers' neighbours.
PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5

MOST_NEIGHBOURS = max(PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS)

_ROWS = 512


@dataclass(frozen=True)
class Manifold:
    """What the neighbourhoods of two sets of features say, each a ball up to the k-th nearest other feature of its set.

    precision: fraction of samples inside a real image's neighbourhood; recall: of real images inside a sample's.
    density: real neighbourhoods that a sample lies in, on average, in units of k: 1 is as dense as the real images.
    coverage: fraction of real images that have a sample in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: Tensor, fake: Tensor) -> Manifold:
    """Of features (N, d) and (M, d), with the papers' 3 neighbours for precision and recall, 5 for the other two.

    Memory grows with N + M, not with their product. Raises UserError for a set of at most 5 features.
    """
    center = real.mean(0)  # of all distances: one that lies on a ball's surface stays there
    real, fake = real - center, fake - center
    real_precision, real_density = neighbour_radii(real, (PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS))
    (fake_precision,) = neighbour_radii(fake, (PRECISION_NEIGHBOURS,))
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = hits = covered = 0
    for rows, distances in _distances(real, fake):
        precise |= (distances <= real_precision[rows, None]).any(0)
        recalled += int((distances <= fake_precision).any(1).sum())
        near = distances < real_density[rows, None]
        hits += int(near.sum())
        covered += int(near.any(1).sum())
    return Manifold(
        precision=float(precise.double().mean()),
        recall=recalled / len(real),
        density=hits / (DENSITY_NEIGHBOURS * len(fake)),
        coverage=covered / len(real),
    )


def neighbour_radii(features: Tensor, neighbours: tuple[int, ...]) -> list[Tensor]:
    """Squared distances of each feature (N, d) to its k-th nearest other one, (N,) for each k."""
    most = max(neighbours)
    if len(features) <= most:
        raise UserError(
            f"neighbourhoods of {most} need more than {most} images, not {len(features)}: evaluate on more samples"
        )
    # The nearest of all is the feature itself.
    nearest = [distances.topk(most + 1, 1, largest=False).values for _, distances in _distances(features, features)]
    return [torch.cat(nearest)[:, k] for k in neighbours]


def _distances(one: Tensor, other: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of some rows at a time to all of the other set, (rows, M).

    Both lie around 0: float32 keeps more of small distances so.
    """
    squares = other.square().sum(1)
    for first in range(0, len(one), _ROWS):
        part = one[first : first + _ROWS]
        distances = torch.addmm(squares[None], part, other.T, alpha=-2)
        yield slice(first, first + len(part)), distances.add_(part.square().sum(1)[:, None])
