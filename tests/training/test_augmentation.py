"""DiffAugment: its gradients, each kind against its literal form, and what its random numbers depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distgan.config.schedule import Schedule
from distgan.config.schema import Augmentation
from distgan.losses.context import Context
from distgan.training.augmentation import Augment, adjust_color, cut_out, translate

pytestmark = pytest.mark.timeout(60)

DTYPE = torch.float64
ALL: list[Augmentation] = ["color", "translation", "cutout"]
REALS, FAKES = "augmented reals", "augmented fakes"


def draws(update: int = 0, group: int = 0, seed: int = 0) -> Context:
    return Context(update, 0.0, seed, group, torch.device("cpu"), DTYPE)


def images(count: int, channels: int, size: int) -> Tensor:
    random = torch.Generator().manual_seed(count)
    return torch.rand(count, channels, size, size, generator=random, dtype=DTYPE) * 2 - 1


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DTYPE)


@pytest.mark.parametrize("kinds", [["color"], ["translation"], ["cutout"], ALL, ALL[::-1]], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_those_of_finite_differences(kinds: list[Augmentation], channels: int) -> None:
    augment, source = Augment(kinds), images(2, channels, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, draws(), REALS), source)
    assert torch.autograd.gradgradcheck(lambda x: augment(x, draws(), REALS), source)
    half = Augment(kinds, 0.5)
    assert torch.autograd.gradgradcheck(lambda x: half(x, draws(), REALS), source)


def test_color_is_the_literal_formula() -> None:
    source = images(2, 3, 4)
    brightness, saturation, contrast = numbers(0.9, 0.1), numbers(0.25, 0.75), numbers(0.0, 0.5)
    found = adjust_color(source, brightness, saturation, contrast)
    for n in range(2):
        x = source[n] + (brightness[n] - 0.5)
        gray = (x[0] + x[1] + x[2]) / 3
        x = (x - gray) * (2 * saturation[n]) + gray
        x = (x - x.mean()) * (contrast[n] + 0.5) + x.mean()
        torch.testing.assert_close(found[n], x)
    middle = numbers(0.5, 0.5)
    torch.testing.assert_close(adjust_color(source, middle, middle, middle), source)


def test_translation_moves_by_whole_pixels_and_fills_with_0() -> None:
    # An eighth of 16 pixels is 2: five shifts, each a fifth of [0, 1).
    source = images(5, 2, 16)
    found = translate(source, numbers(0.0, 0.3, 0.5, 0.7, 0.99), numbers(0.99, 0.5, 0.5, 0.1, 0.1))
    for n, (down, right) in enumerate([(-2, 2), (-1, 0), (0, 0), (1, -2), (2, -2)]):
        wanted = torch.zeros(2, 16, 16, dtype=DTYPE)
        for row in range(16):
            for column in range(16):
                if 0 <= row - down < 16 and 0 <= column - right < 16:
                    wanted[:, row, column] = source[n, :, row - down, column - right]
        assert torch.equal(found[n], wanted)
    assert torch.equal(found[2], source[2])


def test_the_farthest_translation_is_an_eighth() -> None:
    source = torch.ones(2000, 1, 32, 32, dtype=DTYPE)
    moved = Augment(["translation"])(source, draws(), REALS)[:, 0]
    for lines in (moved.amax(1), moved.amax(2)):
        assert lines.sum(1).min() == 32 - 4
        assert lines.sum(1).max() == 32
        assert lines[:, 0].min() == lines[:, -1].min() == 0
        # Nine shifts, alike often.
        assert (lines.sum(1) == 32).double().mean().item() == pytest.approx(1 / 9, abs=0.03)


def test_cutout_is_a_square_of_half_the_side() -> None:
    source = images(3, 2, 8)
    # Of 9 middles 0 to 8 in each direction: the upper left corner, the middle, the lower right corner.
    found = cut_out(source, numbers(0.0, 0.5, 0.99), numbers(0.0, 0.5, 0.99))
    for n, (first, last) in enumerate([(0, 2), (2, 6), (6, 8)]):
        wanted = source[n].clone()
        wanted[:, first:last, first:last] = 0
        assert torch.equal(found[n], wanted)
    row_only = cut_out(source, numbers(0.5, 0.5, 0.5), numbers(0.0, 0.0, 0.0))
    assert torch.equal(row_only[:, :, :, 2:], source[:, :, :, 2:])
    assert row_only[:, :, 2:6, :2].abs().max() == 0


def test_draws_belong_to_seed_update_group_and_purpose() -> None:
    augment, source = Augment(ALL), images(4, 3, 16)
    base = augment(source, draws(), REALS)
    assert torch.equal(base, augment(source, draws(), REALS))
    state = torch.random.get_rng_state()
    others = [
        augment(source, draws(update=1), REALS),
        augment(source, draws(group=1), REALS),
        augment(source, draws(seed=1), REALS),
        augment(source, draws(), FAKES),
        augment(source, draws(), "augmented generator fakes"),
    ]
    assert all(not torch.equal(base, other) for other in others)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_each_image_has_its_own_draws() -> None:
    same = images(1, 3, 16).expand(64, 3, 16, 16)
    for kind in ALL:
        augmented = Augment([kind])(same, draws(), REALS)
        assert len(augmented.flatten(1).unique(dim=0)) > (20 if kind == "translation" else 50), kind


def test_a_kind_is_the_same_whatever_others_are_chosen() -> None:
    source = images(4, 3, 16)
    alone = Augment(["cutout"])(Augment(["color"])(source, draws(), REALS), draws(), REALS)
    assert torch.equal(Augment(["color", "cutout"])(source, draws(), REALS), alone)


def test_each_kind_changes_an_image_with_the_probability() -> None:
    source = images(1, 3, 16).expand(2000, 3, 16, 16)
    whole = Augment(["color"])(source, draws(), REALS)
    assert torch.equal(Augment(ALL, 0.0)(source, draws(), REALS), source)
    found = Augment(["color"], 0.3)(source, draws(), REALS)
    changed = (found != source).flatten(1).any(1)
    assert changed.double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(found[changed], whole[changed])
    # Kinds are chosen independently of each other.
    cut = (Augment(["cutout"], 0.3)(source, draws(), REALS) != source).flatten(1).any(1)
    assert (changed & cut).double().mean().item() == pytest.approx(0.09, abs=0.02)


def test_the_probability_follows_its_schedule() -> None:
    augment = Augment(ALL, Schedule(from_=0, to=1, until_kimg=10))
    source = images(4, 3, 16)
    assert torch.equal(augment(source, draws(), REALS), source)
    late = replace(draws(), kimg=10.0)
    assert torch.equal(augment(source, late, REALS), Augment(ALL)(source, late, REALS))


def test_none_is_the_image_itself() -> None:
    source = images(2, 1, 16)
    assert Augment([])(source, draws(), REALS) is source


@pytest.mark.parametrize("kinds", [["color"], ["translation"], ["cutout"], ALL], ids=str)
def test_the_memory_format_stays(kinds: list[Augmentation]) -> None:
    source = images(2, 3, 16).to(memory_format=torch.channels_last)
    found = Augment(kinds)(source, draws(), REALS)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == source.dtype
