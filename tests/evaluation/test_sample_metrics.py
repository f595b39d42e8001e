"""Kernel distance, precision, recall, density, coverage and Inception Score against their formulas, written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.metrics.inception_score import inception_score
from distgan.evaluation.metrics.kid import kernel_distance
from distgan.evaluation.metrics.mind import sliced_distance
from distgan.evaluation.metrics.prdc import prdc

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


def sets(count: int, other: int, dimension: int, shift: float = 0.3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    real = torch.randn(count, dimension, generator=random, dtype=torch.float64)
    return real, 0.8 * torch.randn(other, dimension, generator=random, dtype=torch.float64) + shift


def literal_mmd(real: Tensor, fake: Tensor) -> float:
    """Bińkowski et al. 2018, equation 4, pair by pair."""

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    within = [
        sum(kernel(x, y) for x, y in itertools.permutations(features, 2)) / (len(features) * (len(features) - 1))
        for features in (real, fake)
    ]
    across = sum(kernel(x, y) for x in real for y in fake) / (len(real) * len(fake))
    return within[0] + within[1] - 2 * across


def test_kernel_distance_of_whole_sets_is_the_formula() -> None:
    """A subset as large as the sets is the sets in another order."""
    real, fake = sets(12, 12, 5)
    found = kernel_distance(real, fake, subsets=3, subset_size=100)
    assert found.mean == pytest.approx(literal_mmd(real, fake), rel=1e-12)
    assert found.std == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    """Two samples of one distribution are 0 apart on average, as often below as above."""
    random = torch.Generator().manual_seed(1)
    values = []
    for seed in range(200):
        one, other = torch.randn(2, 20, 4, generator=random, dtype=torch.float64)
        values.append(kernel_distance(one, other, subsets=1, seed=seed).mean)
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))
    assert 60 < sum(value < 0 for value in values) < 140


def test_kernel_distance_repeats_and_is_float32s_to_rounding() -> None:
    real, fake = sets(300, 200, 64)
    found = kernel_distance(real, fake, subsets=20, subset_size=50, seed=3)
    assert kernel_distance(real, fake, subsets=20, subset_size=50, seed=3) == found
    assert kernel_distance(real, fake, subsets=20, subset_size=50, seed=4) != found
    single = kernel_distance(real.float(), fake.float(), subsets=20, subset_size=50, seed=3)
    assert single.mean == pytest.approx(found.mean, abs=1e-6)
    assert single.std == pytest.approx(found.std, abs=1e-6)


def radius(features: Tensor, number: int, neighbors: int) -> float:
    distances = torch.linalg.vector_norm(features - features[number], dim=1)
    others = [float(distance) for i, distance in enumerate(distances) if i != number]
    return sorted(others)[neighbors - 1]


@pytest.mark.parametrize(("count", "other"), [(30, 40), (700, 20)])
def test_neighborhoods_are_the_formulas(count: int, other: int) -> None:
    real, fake = sets(count, other, 3)
    radii = {k: [radius(real, i, k) for i in range(count)] for k in (3, 5)}
    fake_radii = [radius(fake, j, 3) for j in range(other)]
    apart = torch.cdist(real, fake)
    found = prdc(real, fake)
    assert found.precision == np.mean([any(apart[i, j] <= radii[3][i] for i in range(count)) for j in range(other)])
    assert found.recall == np.mean([any(apart[i, j] <= fake_radii[j] for j in range(other)) for i in range(count)])
    inside = sum(bool(apart[i, j] < radii[5][i]) for i in range(count) for j in range(other))
    assert found.density == pytest.approx(inside / (5 * other))
    assert found.coverage == np.mean([any(apart[i, j] < radii[5][i] for j in range(other)) for i in range(count)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_sets_are_as_dense_as_each_other(dtype: torch.dtype) -> None:
    """In any order: the k-th neighbor lies on the surface of its ball, and is outside."""
    random = torch.Generator().manual_seed(0)
    real = torch.randn(700, 320, generator=random, dtype=dtype).relu()
    for fake in (real.clone(), real[torch.randperm(700, generator=random)]):
        found = prdc(real, fake)
        assert found.density == pytest.approx(1, abs=1e-3)
        assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_what_lies_on_a_surface_is_the_authors_code() -> None:
    """Kynkäänniemi et al. count it in for precision and recall, Naeem et al. do not for density and coverage."""
    line = torch.arange(0.0, 12.0)[:, None]
    far = torch.tensor([[14.0], [100.0], [200.0], [300.0], [400.0], [500.0]])
    found = prdc(line, far)
    assert found.precision == 1 / 6  # 14 is as far from 11 as its third neighbor, 8, and farther from all others
    assert found.density == 1 / (5 * 6)  # nearer to 11 than its fifth neighbor, 6; as far from 10 as its fifth, 6
    assert found.coverage == 1 / 12


def test_fidelity_and_diversity_come_apart() -> None:
    """Samples of one of two modes: all of them look real, half of what is real is not reached; and far ones."""
    random = torch.Generator().manual_seed(0)
    modes = torch.randn(2, 100, 8, generator=random) + torch.tensor([[[0.0]], [[20.0]]])
    one_mode = torch.randn(100, 8, generator=random)
    found = prdc(modes.flatten(0, 1), one_mode)
    assert found.precision > 0.8
    assert found.recall < 0.5
    assert 0.4 < found.coverage <= 0.5
    far = prdc(modes.flatten(0, 1), one_mode + 1000)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_large_offsets_do_not_drown_neighbors() -> None:
    """Features far from 0 in float32, as ReLU features are."""
    real, fake = sets(200, 200, 16)
    wanted, found = prdc(real, fake), prdc((real + 100).float(), (fake + 100).float())
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=0.011)


def test_inception_score_is_the_formula() -> None:
    logits = torch.randn(23, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    scores = []
    order = np.random.RandomState(2020).permutation(23)
    for part in np.array_split(logits.softmax(1).numpy()[order], 10):
        marginal = part.mean(0)
        scores.append(
            math.exp(np.mean([sum(p * math.log(p / q) for p, q in zip(row, marginal, strict=True)) for row in part]))
        )
    found = inception_score(logits)
    assert found.mean == pytest.approx(np.mean(scores))
    assert found.std == pytest.approx(np.std(scores))


def test_inception_score_does_not_depend_on_the_order_of_classes() -> None:
    """Images of 10 classes, sorted by class as a folder may be, and mixed."""
    random = torch.Generator().manual_seed(0)
    classes = 6.0 * torch.eye(10).repeat_interleave(100, 0) + torch.randn(1000, 10, generator=random)
    mixed = classes[torch.randperm(1000, generator=random)]
    assert inception_score(classes).mean == pytest.approx(inception_score(mixed).mean, rel=0.01)
    assert inception_score(classes).mean > 5
    assert inception_score(classes) == inception_score(classes)


def test_inception_score_lies_between_one_and_the_classes() -> None:
    assert inception_score(torch.zeros(100, 7)).mean == pytest.approx(1)
    certain = 1000.0 * torch.eye(7).repeat(20, 1)
    assert inception_score(certain, splits=1).mean == pytest.approx(7)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: kernel_distance(torch.zeros(1, 2), torch.zeros(5, 2)), "at least 2 images in each set, not 1"),
        (lambda: prdc(torch.zeros(5, 2), torch.zeros(9, 2)), "need more than 5 images, not 5"),
        (lambda: inception_score(torch.zeros(9, 2)), "10 splits needs as many images, not 9"),
    ],
)
def test_too_few_images_are_one_line(measure: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure()  # type: ignore[operator]


def literal_sliced(real: Tensor, fake: Tensor, directions: int) -> float:
    """Berthet et al. 2026: projections on unit vectors, one direction and one pair of quantiles at a time."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(directions, real.shape[1], generator=random).to(real)
    costs = []
    for vector in vectors:
        one, other = (sorted(float(x @ vector / vector.norm()) for x in features) for features in (real, fake))
        costs.append(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(real))
    return 3 * real.shape[1] * sum(costs) / directions


def test_sliced_distance_is_the_formula() -> None:
    real, fake = sets(12, 12, 5)
    assert sliced_distance(real, fake, directions=7) == pytest.approx(literal_sliced(real, fake, 7), rel=1e-6)
    assert sliced_distance(real, real.flip(0)) == 0


def test_sliced_distance_of_shifted_sets() -> None:
    """Sets that a shift of s in each coordinate tells apart are 3 d s² apart, the mean over directions."""
    real, _ = sets(50, 50, 8)
    found = sliced_distance(real, real + 0.5, directions=20_000)
    assert found == pytest.approx(3 * 8 * 0.5**2, rel=0.05)


def test_sliced_distance_of_sets_that_differ_in_size() -> None:
    """As many of the larger set are drawn, each at most once, the same on every call."""
    _, fake = sets(12, 12, 5)
    twice = torch.cat([fake, fake])
    assert sliced_distance(twice, fake) == sliced_distance(twice, fake) > 0
    assert sliced_distance(twice[:12], fake) == 0
    with pytest.raises(UserError, match="at least 2 images"):
        sliced_distance(fake, fake[:1])
