"""Precision, recall, density and coverage: fidelity and diversity as separate numbers.

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
from distgan.evaluation.metrics.metric import Metric, MetricInputs

# k of the papers.
PRECISION_NEIGHBORS, DENSITY_NEIGHBORS = 3, 5

_ROWS = 512


@dataclass(frozen=True)
class Prdc:
    """The four numbers. A feature's neighborhood is the ball up to the k-th nearest other feature of its set.

    precision: fraction of samples inside a real image's neighborhood; recall: of real images inside a sample's.
    density: real neighborhoods that a sample lies in, on average, in units of k: 1 is as dense as the real images.
    coverage: fraction of real images that have a sample in their neighborhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor) -> Prdc:
    """All four of features (N, d) and (M, d): 3 neighbors for precision and recall, 5 for density and coverage.

    Memory grows with N + M, not with their product. Raises UserError for a set of at most 5 features.
    """
    center = real.mean(0)  # of all distances: one that lies on a ball's surface stays there
    real, fake = real - center, fake - center
    real_precision, real_density = neighbor_radii(real, (PRECISION_NEIGHBORS, DENSITY_NEIGHBORS))
    (fake_precision,) = neighbor_radii(fake, (PRECISION_NEIGHBORS,))
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = hits = covered = 0
    for rows, distances in _distances(real, fake):
        precise |= (distances <= real_precision[rows, None]).any(0)
        recalled += int((distances <= fake_precision).any(1).sum())
        near = distances < real_density[rows, None]
        hits += int(near.sum())
        covered += int(near.any(1).sum())
    return Prdc(
        precision=float(precise.double().mean()),
        recall=recalled / len(real),
        density=hits / (DENSITY_NEIGHBORS * len(fake)),
        coverage=covered / len(real),
    )


def neighbor_radii(features: Tensor, neighbors: tuple[int, ...]) -> list[Tensor]:
    """Squared distances of each feature (N, d) to its k-th nearest other one, (N,) for each k."""
    most = max(neighbors)
    if len(features) <= most:
        raise UserError(
            f"neighborhoods of {most} need more than {most} images, not {len(features)}: evaluate on more samples"
        )
    # The nearest is the feature itself.
    nearest = [distances.topk(most + 1, 1, largest=False).values for _, distances in _distances(features, features)]
    return [torch.cat(nearest)[:, k] for k in neighbors]


def _distances(one: Tensor, other: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of a few rows at a time to all of the other set, (rows, M).

    Both sets are centered, so that float32 keeps small distances exact.
    """
    squares = other.square().sum(1)
    for first in range(0, len(one), _ROWS):
        part = one[first : first + _ROWS]
        distances = torch.addmm(squares[None], part, other.T, alpha=-2)
        yield slice(first, first + len(part)), distances.add_(part.square().sum(1)[:, None])


class _Prdc(Metric):
    higher_is_better = True
    min_images = max(PRECISION_NEIGHBORS, DENSITY_NEIGHBORS) + 1
    group = "manifold"

    def compute(self, inputs: MetricInputs) -> float:
        found: float = getattr(inputs.shared(_of_inputs), self.name)
        return found


def _of_inputs(inputs: MetricInputs) -> Prdc:
    return prdc(inputs.real_features, inputs.fake_features)


class Precision(_Prdc):
    """The fraction of samples inside a real image's neighborhood: fidelity."""

    name, aliases = "precision", ("pr",)


class Recall(_Prdc):
    """The fraction of real images inside a sample's neighborhood: diversity."""

    name, aliases = "recall", ("pr",)


class Density(_Prdc):
    """The mean number of real neighborhoods that a sample lies in, divided by k: fidelity."""

    name, aliases = "density", ("dc",)


class Coverage(_Prdc):
    """The fraction of real images with a sample in their neighborhood: diversity."""

    name, aliases = "coverage", ("dc",)
