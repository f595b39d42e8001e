"""The Fréchet distance against closed forms, and the sums that ranks add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm  # type: ignore[import-untyped]
from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.feature_statistics import FeatureSums, GaussianStatistics
from distgan.evaluation.metrics.frechet import frechet_distance

pytestmark = pytest.mark.timeout(60)


def gaussian(mean: Tensor, covariance: Tensor) -> GaussianStatistics:
    return GaussianStatistics(mean.double(), covariance.double(), count=1000)


def draw(count: int, dimension: int, seed: int, smallest_exponent: float = 0.0) -> Tensor:
    """Normal features whose deviations fall from 1 to 10**smallest_exponent, in a random basis."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, dimension, dtype=torch.float64, generator=generator)
    basis, _ = torch.linalg.qr(torch.randn(dimension, dimension, dtype=torch.float64, generator=generator))
    deviations = torch.logspace(0, smallest_exponent, dimension, dtype=torch.float64)
    return (features * deviations) @ basis


def sums_of(features: Tensor, chunk: int = 64) -> FeatureSums:
    sums = FeatureSums.zeros(features.shape[1])
    for part in features.split(chunk):
        sums.update(part)
    return sums


def rotation(dimension: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dimension, dimension, dtype=torch.float64, generator=generator))[0]


# --- closed forms ---------------------------------------------------------------------------------------


def test_of_one_dimension_is_the_difference_of_means_and_of_deviations() -> None:
    a = gaussian(torch.tensor([1.0]), torch.tensor([[4.0]]))
    b = gaussian(torch.tensor([-2.0]), torch.tensor([[25.0]]))
    assert frechet_distance(a, b) == pytest.approx(3.0**2 + (5.0 - 2.0) ** 2, rel=1e-12)


def test_of_diagonal_covariances_adds_up_over_the_axes() -> None:
    left, right = torch.tensor([1.0, 4.0, 9.0, 0.25]), torch.tensor([16.0, 1.0, 2.25, 0.0])
    means = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 0.0, 3.5])
    expected = (means[0] - means[1]).square().sum() + (left.sqrt() - right.sqrt()).square().sum()
    distance = frechet_distance(gaussian(means[0], left.diag()), gaussian(means[1], right.diag()))
    assert distance == pytest.approx(expected.item(), rel=1e-12)


def test_of_commuting_covariances_compares_their_eigenvalues() -> None:
    basis = rotation(40, seed=1)
    left, right = torch.linspace(0.1, 5, 40).double(), torch.linspace(7, 0.01, 40).double()
    zero = torch.zeros(40)
    a = gaussian(zero, basis @ left.diag() @ basis.T)
    b = gaussian(zero, basis @ right.diag() @ basis.T)
    expected = (left.sqrt() - right.sqrt()).square().sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_of_two_by_two_covariances_that_do_not_commute() -> None:
    """For 2x2 matrices, tr M^½ = sqrt(tr M + 2 sqrt(det M))."""
    left, right = torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([[1.0, -0.8], [-0.8, 4.0]])
    product = (left @ right).double()
    root_trace = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()
    expected = left.trace() + right.trace() - 2 * root_trace
    zero = torch.zeros(2)
    assert frechet_distance(gaussian(zero, left), gaussian(zero, right)) == pytest.approx(expected.item(), rel=1e-6)


# --- properties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "smallest_exponent"), [(500, 0), (500, -4), (60, 0), (60, -8)])
def test_is_symmetric_and_does_not_depend_on_the_basis(count: int, smallest_exponent: float) -> None:
    x, y = draw(count, 100, 1, smallest_exponent), 2 * draw(count, 100, 2, smallest_exponent) + 0.1
    a, b = sums_of(x).statistics(), sums_of(y).statistics()
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-12)
    turned = rotation(100, seed=3)
    rotated = frechet_distance(sums_of(x @ turned).statistics(), sums_of(y @ turned).statistics())
    assert rotated == pytest.approx(distance, rel=1e-8)


@pytest.mark.parametrize("smallest_exponent", [0, -4, -8])
@pytest.mark.parametrize("count", [2, 60, 1000])
def test_of_a_set_and_itself_in_another_order_is_zero(count: int, smallest_exponent: float) -> None:
    features = draw(count, 100, 1, smallest_exponent)
    a, b = sums_of(features).statistics(), sums_of(features.flip(0), chunk=7).statistics()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert 0 <= frechet_distance(a, b) < 1e-10


def test_of_fewer_images_than_features_is_finite_and_positive() -> None:
    a, b = sums_of(draw(5, 200, 1)).statistics(), sums_of(draw(7, 200, 2)).statistics()
    assert 0 < frechet_distance(a, b) < float(a.covariance.trace() + b.covariance.trace()) + 400


def test_of_constant_features_is_the_distance_of_the_means() -> None:
    a = sums_of(torch.full((10, 8), 0.3)).statistics()
    b = sums_of(torch.full((10, 8), -0.2)).statistics()
    assert frechet_distance(a, b) == pytest.approx(8 * 0.5**2, rel=1e-6)


def test_of_different_dimensions_is_refused() -> None:
    a, b = sums_of(draw(10, 3, 1)).statistics(), sums_of(draw(10, 4, 1)).statistics()
    with pytest.raises(UserError, match="3 and of 4 features"):
        frechet_distance(a, b)


# --- sums -----------------------------------------------------------------------------------------------


def test_statistics_are_mean_and_unbiased_covariance() -> None:
    features = draw(300, 20, 1)
    statistics = sums_of(features).statistics()
    assert statistics.count == 300
    torch.testing.assert_close(statistics.mean, features.mean(dim=0))
    torch.testing.assert_close(statistics.covariance, features.T.cov())


def test_covariance_holds_where_the_mean_is_thousands_of_deviations() -> None:
    features = (draw(4000, 10, 1) + 5000).float()
    covariance = sums_of(features).statistics().covariance
    torch.testing.assert_close(covariance, features.double().T.cov(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [100, 1000])
def test_distance_does_not_depend_on_the_number_of_workers(workers: int, count: int) -> None:
    features, real = draw(count, 150, 1).float(), sums_of(draw(1000, 150, 2)).statistics()
    chunks = features.split(64)
    ranks = [FeatureSums.zeros(150) for _ in range(workers)]
    for index, chunk in enumerate(chunks):
        ranks[index % workers].update(chunk)
    reduced = torch.stack([rank.to_tensor() for rank in ranks]).sum(dim=0)
    joint = FeatureSums.from_tensor(reduced, 150)
    assert joint.count == count
    expected = frechet_distance(sums_of(features).statistics(), real)
    assert frechet_distance(joint.statistics(), real) == pytest.approx(expected, rel=1e-10)


def test_sums_add_without_changing_their_parts() -> None:
    features = draw(100, 5, 1)
    left, right = sums_of(features[:30]), sums_of(features[30:])
    before = left.to_tensor()
    joint, whole = left + right, sums_of(features)
    joint.update(features)
    whole.update(features)
    torch.testing.assert_close(joint.to_tensor(), whole.to_tensor())
    assert torch.equal(left.to_tensor(), before)


def test_sums_of_a_rank_without_images_change_nothing() -> None:
    sums = sums_of(draw(10, 5, 1))
    sums.update(torch.empty(0, 5))
    assert torch.equal((sums + FeatureSums.zeros(5)).to_tensor(), sums.to_tensor())


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"at least 2 images, not {count}"):
        sums_of(torch.zeros(count, 4)).statistics()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_features_that_are_not_finite_are_refused_after_the_all_reduce(value: float) -> None:
    features = draw(100, 4, 1).float()
    features[70, 2] = value
    joint = sums_of(features[:64]) + sums_of(features[64:])
    with pytest.raises(UserError, match="not finite"):
        joint.statistics()


# --- another way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "other", "dimension"), [(200, 300, 40), (1000, 700, 128)])
def test_distance_is_that_of_the_matrix_square_root(count: int, other: int, dimension: int) -> None:
    """As the common tools compute it, where the covariances are of full rank."""
    one = sums_of(draw(count, dimension, 1, smallest_exponent=-1)).statistics()
    two = sums_of(draw(other, dimension, 2, smallest_exponent=-1) * 1.3 + 0.1).statistics()
    root = sqrtm(one.covariance.numpy() @ two.covariance.numpy())
    wanted = float((one.mean - two.mean).square().sum() + one.covariance.trace() + two.covariance.trace())
    wanted -= 2 * float(np.trace(root).real)
    assert frechet_distance(one, two) == pytest.approx(wanted, rel=1e-6)
