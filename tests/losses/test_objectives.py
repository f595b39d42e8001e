"""The losses against numbers worked out by hand, and their gradients against finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distgan.config.schedule import Schedule
from distgan.losses.bce import LOGIT_BOUND, BinaryCrossEntropy
from distgan.losses.context import Context
from distgan.losses.hinge import Hinge
from distgan.losses.objective import Objective
from distgan.losses.penalties import gradient_norms, image_gradients
from distgan.losses.rng import _NUMBERS, derive_seed
from distgan.losses.rpgan import RelativisticPairing
from distgan.losses.wgan import Wasserstein
from distgan.losses.wgan_gp import WassersteinGradientPenalty
from distgan.models.wgan_gp import Discriminator

pytestmark = pytest.mark.timeout(60)

DTYPE = torch.float64

# Logits of real images, for generator losses that ask for none.
NONE = torch.empty(0, dtype=DTYPE)

NAMES = [*_NUMBERS, "", "anything", "label noise ", "étude"]


class FixedDraws(Context):
    """Draws that a test chose."""

    def __init__(self, **numbers: list[float] | list[list[float]]) -> None:
        super().__init__(0, 0.0, 0, 0, torch.device("cpu"), DTYPE)
        object.__setattr__(
            self, "numbers", {name.replace("_", " "): torch.tensor(n, dtype=DTYPE) for name, n in numbers.items()}
        )
        object.__setattr__(self, "kinds", [])

    def uniform(self, stream: str, *shape: int) -> Tensor:
        self.kinds.append(("uniform", stream))  # type: ignore[attr-defined]
        return self.numbers[stream].reshape(shape)  # type: ignore[attr-defined,no-any-return]

    def normal(self, stream: str, *shape: int) -> Tensor:
        self.kinds.append(("normal", stream))  # type: ignore[attr-defined]
        return self.numbers[stream].reshape(shape)  # type: ignore[attr-defined,no-any-return]


def draws(update: int = 0, group: int = 0, seed: int = 0) -> Context:
    return Context(update, 0.0, seed, group, torch.device("cpu"), DTYPE)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DTYPE)


def bce(logit: float, target: float) -> float:
    """−t ln p − (1 − t) ln (1 − p), for any target."""
    return target * math.log1p(math.exp(-logit)) + (1 - target) * math.log1p(math.exp(logit))


def test_bce_without_noise() -> None:
    loss = BinaryCrossEntropy(label_noise=0).discriminator_loss(tensor(2.0, -1.0), tensor(0.5, -3.0), draws())
    expected = 0.5 * ((bce(2, 1) + bce(-1, 1)) / 2 + (bce(0.5, 0) + bce(-3, 0)) / 2)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert loss.item() == pytest.approx(0.5 * ((0.126928 + 1.313262) / 2 + (0.974077 + 0.048587) / 2), abs=1e-6)


def test_bce_with_targets_outside_0_and_1() -> None:
    numbers = FixedDraws(label_noise=[[0.5, 1.0], [0.25, 0.75]])
    loss = BinaryCrossEntropy(label_noise=0.4).discriminator_loss(tensor(2.0, -1.0), tensor(0.5, -3.0), numbers)
    real = (bce(2, 1.2) + bce(-1, 1.4)) / 2
    fake = (bce(0.5, -0.1) + bce(-3, -0.3)) / 2
    assert loss.item() == pytest.approx(0.5 * (real + fake), rel=1e-12)


def test_the_noisy_loss_may_be_negative() -> None:
    numbers = FixedDraws(label_noise=[[1.0], [1.0]])
    loss = BinaryCrossEntropy(label_noise=0.1).discriminator_loss(tensor(15.0), tensor(-15.0), numbers)
    assert loss.item() == pytest.approx(-1.5, abs=1e-5)


def test_flips_exchange_targets_with_the_noise_of_the_other_kind() -> None:
    numbers = FixedDraws(label_noise=[[0.5, 0.5], [0.5, 0.5]], label_flips=[[0.1, 0.9], [0.9, 0.1]])
    objective = BinaryCrossEntropy(label_noise=0.2, label_flips=0.3)
    loss = objective.discriminator_loss(tensor(2.0, -1.0), tensor(0.5, -3.0), numbers)
    real = (bce(2, -0.1) + bce(-1, 1.1)) / 2
    fake = (bce(0.5, -0.1) + bce(-3, 1.1)) / 2
    assert loss.item() == pytest.approx(0.5 * (real + fake), rel=1e-12)


def targets(objective: BinaryCrossEntropy, count: int) -> tuple[Tensor, Tensor]:
    """Real and fake targets that a loss drew: its gradient at logit 0 is (1/2 − target) / 2 / count."""
    real, fake = (torch.zeros(count, dtype=DTYPE, requires_grad=True) for _ in range(2))
    objective.discriminator_loss(real, fake, draws()).backward()
    assert real.grad is not None
    assert fake.grad is not None
    return 0.5 - 2 * count * real.grad, 0.5 - 2 * count * fake.grad


def test_label_noise_fills_its_range() -> None:
    real, fake = targets(BinaryCrossEntropy(label_noise=0.1), 2000)
    assert real.min() >= 1
    assert real.max() <= 1.1
    assert fake.max() <= 0
    assert fake.min() >= -0.1
    assert real.mean().item() == pytest.approx(1.05, abs=0.005)
    assert fake.mean().item() == pytest.approx(-0.05, abs=0.005)
    assert abs(torch.corrcoef(torch.stack([real, fake]))[0, 1]) < 0.1


def test_labels_flip_as_often_as_asked() -> None:
    real, fake = targets(BinaryCrossEntropy(label_noise=0.1, label_flips=0.25), 4000)
    assert (real < 0.5).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (fake > 0.5).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (real < 0.5).ne(fake > 0.5).any()


def test_the_discriminators_logits_are_bounded_as_keras_bounds_probabilities() -> None:
    assert pytest.approx(math.log((1 - 1e-7) / 1e-7), abs=1e-3) == LOGIT_BOUND
    real = tensor(LOGIT_BOUND - 0.1, LOGIT_BOUND + 0.1, 500.0, -500.0).requires_grad_()
    fake = tensor(-LOGIT_BOUND + 0.1, -LOGIT_BOUND - 0.1, -500.0, 500.0).requires_grad_()
    loss = BinaryCrossEntropy(label_noise=0.1).discriminator_loss(real, fake, draws())
    loss.backward()
    for logits in (real, fake):
        assert logits.grad is not None
        assert logits.grad[0] != 0
        assert logits.grad[1:].tolist() == [0, 0, 0]
    assert math.isfinite(loss.item())


@pytest.mark.parametrize("flips", [0.0, 0.5])
def test_without_label_noise_a_discriminator_that_is_surely_wrong_learns(flips: float) -> None:
    real, fake = (tensor(-500.0, -20.0).requires_grad_(), tensor(500.0, 20.0).requires_grad_())
    numbers = FixedDraws(label_noise=[[0.3, 0.9]] * 2, label_flips=[[0.9, 0.9]] * 2)
    loss = BinaryCrossEntropy(label_noise=0, label_flips=flips).discriminator_loss(real, fake, numbers)
    assert loss.item() == pytest.approx(260.0)
    loss.backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert real.grad.tolist() == pytest.approx([-0.25, -0.25])
    assert fake.grad.tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize(
    "objective",
    [BinaryCrossEntropy(label_noise=0), Hinge(), Wasserstein(), WassersteinGradientPenalty()],
    ids=lambda objective: type(objective).__name__,
)
def test_whoever_is_wrong_has_a_gradient_however_large_the_logits_are(objective: Objective) -> None:
    real, fake = (tensor(-1e4).requires_grad_(), tensor(1e4).requires_grad_())
    objective.discriminator_loss(real, fake, draws()).backward()
    missed = tensor(-1e4).requires_grad_()
    objective.generator_loss(missed, NONE, draws()).backward()
    for logits, sign in ((real, -1), (fake, 1), (missed, -1)):
        assert logits.grad is not None
        assert logits.grad.item() * sign >= 0.5


def test_bce_generator_loss_takes_clean_labels_and_unbounded_logits() -> None:
    logits = tensor(-30.0, 0.0, 3.0).requires_grad_()
    loss = BinaryCrossEntropy(label_noise=1.0, label_flips=0.5).generator_loss(logits, NONE, draws())
    assert loss.item() == pytest.approx((bce(-30, 1) + bce(0, 1) + bce(3, 1)) / 3, rel=1e-12)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([-1 / 3, -1 / 6, -(1 / 3) / (1 + math.exp(3))], rel=1e-9)
    assert BinaryCrossEntropy().penalty(nn.Identity(), logits, logits, draws()) is None


@pytest.mark.parametrize("objective", [Wasserstein(), WassersteinGradientPenalty()])
def test_wasserstein_numbers(objective: Objective) -> None:
    assert objective.discriminator_loss(tensor(1.0, 3.0), tensor(-2.0, 7.0), draws()).item() == 0.5
    assert objective.generator_loss(tensor(-2.0, 7.0), NONE, draws()).item() == -2.5


def test_hinge_numbers_and_slopes() -> None:
    # Real: max(0, 1 − D) is 3, 1, 0.5, 0. Fake: max(0, 1 + D) is 0, 1, 1.5, 4.
    real = tensor(-2.0, 0.0, 0.5, 4.0).requires_grad_()
    fake = tensor(-4.0, 0.0, 0.5, 3.0).requires_grad_()
    loss = Hinge().discriminator_loss(real, fake, draws())
    assert loss.item() == (3 + 1 + 0.5 + 0) / 4 + (0 + 1 + 1.5 + 4) / 4
    loss.backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert real.grad.tolist() == [-0.25, -0.25, -0.25, 0]
    assert fake.grad.tolist() == [0, 0.25, 0.25, 0.25]
    assert Hinge().generator_loss(tensor(-2.0, 7.0), NONE, draws()).item() == -2.5


class LinearDiscriminator(nn.Module):
    """⟨w, x⟩: its gradient is w everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.weight).flatten(1).sum(1)


class SquaredDiscriminator(nn.Module):
    """‖x‖² / 2: its gradient is x, so the norms tell where it was asked."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).square().sum(1) / 2


def test_the_penalty_of_a_linear_discriminator_is_known() -> None:
    discriminator = LinearDiscriminator(torch.full((1, 2, 2), 1.5, dtype=DTYPE))  # norm 3
    real, fake = torch.randn(5, 1, 2, 2, dtype=DTYPE), torch.randn(5, 1, 2, 2, dtype=DTYPE)
    assert gradient_norms(discriminator, real).tolist() == pytest.approx([3.0] * 5)
    penalty = WassersteinGradientPenalty(gp_weight=10).penalty(discriminator, real, fake, draws())
    assert penalty is not None
    assert penalty.loss.item() == pytest.approx(10 * (3 - 1) ** 2)
    assert penalty.norm.item() == pytest.approx(3)
    penalty.loss.backward()
    # d/dw 10 (‖w‖ − 1)² = 20 (‖w‖ − 1) w / ‖w‖
    assert discriminator.weight.grad is not None
    assert discriminator.weight.grad.flatten().tolist() == pytest.approx([20 * 2 * 1.5 / 3] * 4)


def test_weights_follow_their_schedules() -> None:
    weight = Schedule(from_=10, to=2, until_kimg=40, shape="linear")
    discriminator = LinearDiscriminator(torch.ones(1, 2, 2, dtype=DTYPE))
    real, fake = torch.zeros(3, 1, 2, 2, dtype=DTYPE), torch.ones(3, 1, 2, 2, dtype=DTYPE)
    for objective in (
        WassersteinGradientPenalty(gp_weight=weight),
        BinaryCrossEntropy(r1_weight=weight),
        Hinge(r1_weight=weight),
    ):
        first, half, last = (
            objective.penalty(discriminator, real, fake, replace(draws(), kimg=kimg)) for kimg in (0.0, 20.0, 99.0)
        )
        assert first is not None
        assert half is not None
        assert last is not None
        assert half.loss.item() == pytest.approx(0.6 * first.loss.item())
        assert last.loss.item() == pytest.approx(0.2 * first.loss.item())


def test_pairs_in_numbers() -> None:
    real, fake = tensor(1.0, 3.0, -2.0), tensor(0.5, -1.0, 4.0)

    def softplus(*values: float) -> float:
        return sum(math.log1p(math.exp(value)) for value in values) / len(values)

    objective = RelativisticPairing(gamma=3)
    assert objective.discriminator_loss(real, fake, draws()).item() == pytest.approx(softplus(-0.5, -4, 6))
    assert objective.generator_loss(fake, real, draws()).item() == pytest.approx(softplus(0.5, 4, -6))
    moved = objective.generator_loss(fake + 7, real + 7, draws())
    assert moved.item() == pytest.approx(softplus(0.5, 4, -6))
    assert {name: value.item() for name, value in objective.accuracies(real, fake).items()} == {
        "pairs": pytest.approx(2 / 3)
    }
    zeros = tensor(0.0, 0.0)
    assert objective.discriminator_loss(zeros, zeros, draws()).item() == pytest.approx(objective.chance_loss)


@pytest.mark.parametrize("kind", [BinaryCrossEntropy, Hinge, RelativisticPairing])
def test_zero_centered_penalties_in_numbers(kind: type[BinaryCrossEntropy | Hinge | RelativisticPairing]) -> None:
    """‖∇D(x)‖² is ‖x‖²: 4 at real images, 16 at generated ones."""
    real, fake = torch.ones(3, 1, 2, 2, dtype=DTYPE), 2 * torch.ones(3, 1, 2, 2, dtype=DTYPE)

    def found(update: int = 0, **weights: float) -> tuple[float, float] | None:
        objective = kind(**weights)  # type: ignore[arg-type]
        penalty = objective.penalty(SquaredDiscriminator(), real, fake, draws(update))
        return None if penalty is None else (penalty.loss.item(), penalty.norm.item())

    assert found(r1_weight=3, r2_weight=0) == pytest.approx((3 / 2 * 4, 2))
    assert found(r1_weight=0, r2_weight=5) == pytest.approx((5 / 2 * 16, 4))
    assert found(r1_weight=3, r2_weight=5) == pytest.approx((3 / 2 * 4 + 5 / 2 * 16, 3))
    assert found(r1_weight=0, r2_weight=0) is None
    lazy = [found(update, r1_weight=3, r2_weight=0, penalty_every=4) for update in range(5)]
    assert lazy[0] == lazy[4] == pytest.approx((4 * 3 / 2 * 4, 2))
    assert lazy[1:4] == [None, None, None]


def test_gamma_is_a_factor_of_both_penalties() -> None:
    real, fake = torch.ones(3, 1, 2, 2, dtype=DTYPE), 2 * torch.ones(3, 1, 2, 2, dtype=DTYPE)
    objective = RelativisticPairing(gamma=0.5, r2_weight=2)
    penalty = objective.penalty(SquaredDiscriminator(), real, fake, draws())
    assert penalty is not None
    assert penalty.loss.item() == pytest.approx(0.5 * (4 / 2 + 2 * 16 / 2))
    without = RelativisticPairing(gamma=0)
    assert not without.penalized
    assert without.penalty(SquaredDiscriminator(), real, fake, draws()) is None


def test_a_lazy_gradient_penalty() -> None:
    images = torch.zeros(3, 1, 2, 2, dtype=DTYPE)
    objective = WassersteinGradientPenalty(gp_weight=10, penalty_every=3)
    penalties = [objective.penalty(SquaredDiscriminator(), images, images, draws(update)) for update in range(4)]
    assert [penalty is None for penalty in penalties] == [False, True, True, False]
    assert penalties[3] is not None
    assert penalties[3].loss.item() == pytest.approx(30)


def test_a_discriminator_without_slope_has_a_finite_penalty() -> None:
    discriminator = LinearDiscriminator(torch.zeros(1, 2, 2, dtype=DTYPE))
    images = torch.randn(3, 1, 2, 2, dtype=DTYPE)
    penalty = WassersteinGradientPenalty(gp_weight=10).penalty(discriminator, images, -images, draws())
    assert penalty is not None
    assert penalty.loss.item() == 10
    assert penalty.norm.item() == 0
    penalty.loss.backward()
    assert discriminator.weight.grad is not None
    assert discriminator.weight.grad.isfinite().all()


@pytest.mark.parametrize("interpolation", ["uniform", "normal"])
def test_the_penalty_is_taken_between_real_and_fake(interpolation: str) -> None:
    numbers = FixedDraws(interpolation=[0.0, 1.0, 0.25])
    real = torch.zeros(3, 1, 1, 2, dtype=DTYPE)
    fake = torch.tensor([3.0, 4.0], dtype=DTYPE).expand(3, 1, 1, 2)
    objective = WassersteinGradientPenalty(gp_weight=2, interpolation=interpolation)
    penalty = objective.penalty(SquaredDiscriminator(), real, fake, numbers)
    assert penalty is not None
    # Norms 0 at the real image, 5 at the fake one and 1.25 a quarter of the way to it.
    assert penalty.norm.item() == pytest.approx((0 + 5 + 1.25) / 3)
    assert penalty.loss.item() == pytest.approx(2 * ((0 - 1) ** 2 + (5 - 1) ** 2 + (1.25 - 1) ** 2) / 3)
    assert numbers.kinds == [(interpolation, "interpolation")]  # type: ignore[attr-defined]


def test_uniform_points_lie_between_and_normal_ones_beyond() -> None:
    real, fake = torch.zeros(500, 1, 1, 1, dtype=DTYPE), torch.ones(500, 1, 1, 1, dtype=DTYPE)
    points: list[Tensor] = []

    class Note(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            points.append(images.detach().flatten())
            return images.flatten(1).sum(1)

    for interpolation in ("uniform", "normal"):
        WassersteinGradientPenalty(interpolation=interpolation).penalty(Note(), real, fake, draws())
    uniform, normal = points
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.05)
    assert len(uniform.unique()) > 490
    assert normal.min() < -1
    assert normal.max() > 1
    assert normal.std().item() == pytest.approx(1, abs=0.1)


def test_the_penaltys_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(image_size=16, channels=1, width=3, dropout=0, init="glorot").double()
    real, fake = torch.randn(4, 1, 16, 16, dtype=DTYPE), torch.randn(4, 1, 16, 16, dtype=DTYPE)
    objective = WassersteinGradientPenalty(gp_weight=10)

    def penalty() -> Tensor:
        value = objective.penalty(discriminator, real, fake, draws())
        assert value is not None
        return value.loss

    penalty().backward()
    convolutions = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)]
    step = 1e-6
    for layer in convolutions:
        gradient = layer.weight.grad
        assert gradient is not None
        assert gradient.abs().max() > 0
        for place in torch.randint(layer.weight.numel(), (4,)).tolist():
            weight = layer.weight.data.view(-1)
            kept = weight[place].item()
            values = []
            for moved in (kept + step, kept - step):
                weight[place] = moved
                values.append(penalty().item())
            weight[place] = kept
            slope = (values[0] - values[1]) / (2 * step)
            assert gradient.reshape(-1)[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_penalty_reaches_neither_the_images_nor_the_generator() -> None:
    source = torch.randn(3, 1, 16, 16, requires_grad=True)
    discriminator = Discriminator(image_size=16, channels=1, width=2)
    numbers = Context(0, 0.0, 0, 0, torch.device("cpu"), torch.float32)
    penalty = WassersteinGradientPenalty().penalty(discriminator, torch.randn(3, 1, 16, 16), source.tanh(), numbers)
    assert penalty is not None
    penalty.loss.backward()
    assert not penalty.norm.requires_grad
    assert source.grad is None


def test_the_penalty_is_in_float32_under_autocast() -> None:
    discriminator = Discriminator(image_size=16, channels=1, width=2, dropout=0)
    images = torch.randn(3, 1, 16, 16)
    plain = gradient_norms(discriminator, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert discriminator(images).dtype == torch.bfloat16
        assert torch.equal(gradient_norms(discriminator, images), plain)


def test_random_numbers_are_their_own_for_each_seed_name_update_and_group() -> None:
    base = draws().uniform("label noise", 4)
    assert torch.equal(base, draws().uniform("label noise", 4))
    others = [
        draws(update=1).uniform("label noise", 4),
        draws(group=1).uniform("label noise", 4),
        draws(seed=1).uniform("label noise", 4),
        draws().uniform("label flips", 4),
    ]
    assert all(not torch.equal(base, other) for other in others)
    seeds = {
        derive_seed(seed, name, update, group)
        for seed in (0, 1, 2**32 - 1)
        for name in NAMES
        for update in (0, 1, 2**33)
        for group in (0, 1)
    }
    assert len(seeds) == 3 * len(NAMES) * 3 * 2
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_of_the_first_version_keep_their_numbers() -> None:
    """And a new name its hash: runs depend on both."""
    state = np.random.SeedSequence([7, 4, 5, 2]).generate_state(1, np.uint64)
    assert derive_seed(7, "label noise", 5, 2) == int(state[0]) >> 1
    assert list(_NUMBERS.values()) == [*range(13), 14, 15, 16]
    assert derive_seed(0, "a new name", 1, 2) == 3_900_637_250_676_643_306


def test_a_stream_begins_anew_at_every_call() -> None:
    context = draws(update=3)
    first = torch.rand(4, generator=context.rng("mine"), dtype=DTYPE)
    assert torch.equal(first, torch.rand(4, generator=context.rng("mine"), dtype=DTYPE))
    assert not torch.equal(first, torch.rand(4, generator=context.rng("other"), dtype=DTYPE))


@pytest.mark.parametrize("objective", [BinaryCrossEntropy(label_flips=0.2), Hinge(), WassersteinGradientPenalty()])
def test_logits_may_be_maps(objective: Objective) -> None:
    """The losses are means over all logits of all images; labels are noisy and flipped for each logit."""
    real, fake = torch.randn(2, 4, 1, 3, 3, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    losses = [
        (objective.discriminator_loss(r, f, draws()), objective.generator_loss(f, NONE, draws()))
        for r, f in ((real, fake), (real.flatten(), fake.flatten()))
    ]
    assert losses[0] == losses[1]
    assert {name: value.item() for name, value in objective.accuracies(real, fake).items()} == {
        "real": pytest.approx((real > 0).double().mean().item()),
        "fake": pytest.approx((fake <= 0).double().mean().item()),
    }


def test_the_gradient_at_an_image_is_that_of_the_sum_of_its_logits() -> None:
    images = torch.randn(2, 1, 2, 2, dtype=DTYPE)
    found = image_gradients(lambda x: torch.stack([x, 3 * x], 1), images)
    assert torch.equal(found, torch.full((2, 4), 4.0, dtype=DTYPE))
