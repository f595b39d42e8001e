"""R1 and the one-sided gradient penalty against analytic cases and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from distgan.losses.bce import BinaryCrossEntropy
from distgan.losses.context import Context
from distgan.losses.hinge import Hinge
from distgan.losses.objective import Objective
from distgan.losses.penalties import gradient_penalty, r1_penalty
from distgan.losses.wgan import Wasserstein
from distgan.losses.wgan_gp import WassersteinGradientPenalty
from distgan.models.wgan_gp import Discriminator

pytestmark = pytest.mark.timeout(60)

DTYPE = torch.float64
DRAWS = Context(0, 0.0, 0, 0, torch.device("cpu"), DTYPE)
PENALIZED: dict[str, Objective] = {
    "two sides": WassersteinGradientPenalty(gp_weight=10, gp_sides=2),
    "one side": WassersteinGradientPenalty(gp_weight=10, gp_sides=1),
    "one side, normal": WassersteinGradientPenalty(gp_weight=3, gp_sides=1, interpolation="normal"),
    "r1 of bce": BinaryCrossEntropy(r1_weight=10),
    "r1 of hinge": Hinge(r1_weight=0.1),
}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


class Quadratic:
    """Per image ½ xᵀ diag(w) x: its gradient is w·x, so a penalty tells at which images it was asked."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, images: Tensor) -> Tensor:
        return (self.weights * images.flatten(1).square()).sum(1) / 2


def test_r1_of_a_linear_discriminator_is_known() -> None:
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=DTYPE, requires_grad=True)
    penalty = r1_penalty(lambda x: x.flatten(1) @ weights, images(5, 1, 2, 2), weight=8)
    assert penalty.loss.item() == pytest.approx(8 / 2 * (1 + 4 + 0.25 + 9))
    assert penalty.norm.item() == pytest.approx(math.sqrt(1 + 4 + 0.25 + 9))
    penalty.loss.backward()  # d/dw 8/2 ‖w‖² = 8 w
    assert weights.grad is not None
    assert weights.grad.tolist() == pytest.approx([8.0, -16.0, 4.0, 24.0])


@pytest.mark.parametrize("objective", [BinaryCrossEntropy(r1_weight=3), Hinge(r1_weight=3)])
def test_r1_is_taken_at_the_real_images(objective: Objective) -> None:
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=DTYPE, requires_grad=True)
    real, fake = images(6, 1, 2, 2), images(6, 1, 2, 2, seed=1)
    penalty = objective.penalty(Quadratic(weights), real, fake, DRAWS)
    assert penalty is not None
    flat = real.flatten(1)
    assert penalty.loss.item() == pytest.approx(1.5 * (weights * flat).square().sum(1).mean().item(), rel=1e-12)
    assert penalty.norm.item() == pytest.approx((weights * flat).norm(dim=1).mean().item(), rel=1e-12)
    penalty.loss.backward()
    assert weights.grad is not None
    wanted = 3 * weights.detach() * flat.square().mean(0)
    assert weights.grad.tolist() == pytest.approx(wanted.tolist(), rel=1e-12)


def test_only_norms_above_1_cost_with_one_side() -> None:
    # Norms 0, 0.5, 1 and 3.
    points = torch.tensor([0.0, 0.5, 1.0, 3.0], dtype=DTYPE)[:, None, None, None] * torch.ones(1, 1, 1, 1, dtype=DTYPE)
    weights = torch.ones(1, dtype=DTYPE, requires_grad=True)
    one = gradient_penalty(Quadratic(weights), points, weight=2, sides=1)
    two = gradient_penalty(Quadratic(weights), points, weight=2, sides=2)
    assert one.loss.item() == pytest.approx(2 * (3 - 1) ** 2 / 4)
    assert two.loss.item() == pytest.approx(2 * (1 + 0.25 + 0 + 4) / 4)
    assert one.norm.item() == two.norm.item() == pytest.approx((0 + 0.5 + 1 + 3) / 4)
    one.loss.backward()  # d/dw 2/4 (3w − 1)² = 2 · 3 · (3w − 1) / 2
    assert weights.grad is not None
    assert weights.grad.item() == pytest.approx(6.0)


def test_an_option_without_weight_is_no_penalty() -> None:
    for objective in (BinaryCrossEntropy(), BinaryCrossEntropy(r1_weight=0), Hinge(), Wasserstein()):
        assert not objective.penalized
        assert objective.penalty(nn.Identity(), images(2, 1, 2, 2), images(2, 1, 2, 2), DRAWS) is None
    assert all(objective.penalized for objective in PENALIZED.values())


@pytest.mark.parametrize("name", PENALIZED)
def test_a_penaltys_gradient_agrees_with_finite_differences(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        discriminator = Discriminator(image_size=16, channels=1, width=3, dropout=0, init="glorot").double()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(3)  # norms on both sides of 1
    real, fake = images(4, 1, 16, 16), images(4, 1, 16, 16, seed=1)

    def penalty() -> Tensor:
        value = PENALIZED[name].penalty(discriminator, real, fake, DRAWS)
        assert value is not None
        return value.loss

    penalty().backward()
    step, random = 1e-6, torch.Generator().manual_seed(0)
    for weight in [p for p in discriminator.parameters() if p.ndim == 4]:
        assert weight.grad is not None
        assert weight.grad.abs().max() > 0
        flat = weight.data.view(-1)
        for place in torch.randint(len(flat), (4,), generator=random).tolist():
            kept, values = flat[place].item(), []
            for moved in (kept + step, kept - step):
                flat[place] = moved
                values.append(penalty().item())
            flat[place] = kept
            slope = (values[0] - values[1]) / (2 * step)
            assert weight.grad.reshape(-1)[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", PENALIZED)
def test_a_penalty_reaches_neither_the_images_nor_the_generator(name: str) -> None:
    sources = images(3, 1, 16, 16).requires_grad_(), images(3, 1, 16, 16, seed=1).requires_grad_()
    discriminator = Discriminator(image_size=16, channels=1, width=2, init="glorot").double()
    penalty = PENALIZED[name].penalty(discriminator, sources[0].tanh(), sources[1].tanh(), DRAWS)
    assert penalty is not None
    penalty.loss.backward()
    assert [source.grad for source in sources] == [None, None]


def test_r1_is_in_float32_under_autocast() -> None:
    discriminator = Discriminator(image_size=16, channels=1, width=2, dropout=0)
    real = images(3, 1, 16, 16).float()
    plain = r1_penalty(discriminator, real, 10).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert discriminator(real).dtype == torch.bfloat16
        assert torch.equal(r1_penalty(discriminator, real, 10).loss, plain)
        low = real.bfloat16()  # as a generator's images are
        found = r1_penalty(discriminator, low, 10).loss
        assert found.dtype == torch.float32
        assert torch.equal(found, r1_penalty(discriminator, low.float(), 10).loss)
