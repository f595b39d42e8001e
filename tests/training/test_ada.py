"""ADA's augmentations: the warp against exact turns and torch's, colors against literal steps, gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distgan.losses.context import Context
from distgan.training import ada as ada_module
from distgan.training.ada import ada, recolor, warp

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

DTYPE = torch.float64


def context(update: int = 0) -> Context:
    return Context(update, 0.0, 0, 0, torch.device("cpu"), DTYPE)


def images(count: int, channels: int, size: int) -> Tensor:
    random = torch.Generator().manual_seed(count)
    return torch.rand(count, channels, size, size, generator=random, dtype=DTYPE) * 2 - 1


def rotation(angle: float) -> Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=DTYPE)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flipped", [False, True])
def test_turns_and_flips_are_exact(turns: int, flipped: bool) -> None:
    source = images(1, 3, 8)
    matrix = rotation(turns * math.pi / 2).round() @ torch.diag(torch.tensor([-1.0 if flipped else 1.0, 1.0])).to(DTYPE)
    wanted = source.rot90(turns, (2, 3))
    found = warp(source, matrix[None], torch.zeros(1, 2, dtype=DTYPE))
    assert torch.equal(found, wanted.flip(3) if flipped else wanted)


def test_shifts_by_whole_pixels_mirror_the_border() -> None:
    source = images(1, 1, 8)
    found = warp(source, torch.eye(2, dtype=DTYPE)[None], torch.tensor([[2.0, -3.0]], dtype=DTYPE))
    padded = F.pad(source, (0, 2, 3, 0), mode="reflect")[:, :, :8, 2:]
    assert torch.equal(found[:, :, 3:, :6], padded[:, :, 3:, :6])
    assert torch.equal(found[:, :, 3:, 6:], source.flip(3)[:, :, :5, :2])  # the border's pixel comes twice
    assert torch.equal(found[:, :, :3, :6], source.flip(2)[:, :, 5:, 2:])


def test_a_shift_alone_is_by_whole_pixels() -> None:
    gates, numbers = torch.ones(24, 200, dtype=DTYPE), torch.rand(24, 200, dtype=DTYPE)
    gates[2] = 0
    found = ada_module._warp_matrices(gates, numbers, numbers, 0.5, 32)
    assert torch.equal(found[:, :2, :2], torch.eye(2, dtype=DTYPE).expand(200, 2, 2))
    assert sorted((found[:, :2, 2] * 32).unique().tolist()) == list(range(-4, 5))


@pytest.mark.parametrize("angle", [0.3, 1.1, 2.5, -1.8])
def test_a_warp_is_about_torchs(angle: float) -> None:
    line = torch.linspace(-3, 3, 32, dtype=DTYPE)
    source = torch.sin(1.3 * line[:, None] + 0.7 * line)[None, None]
    matrix = (rotation(angle) @ torch.diag(torch.tensor([1.1, 0.9], dtype=DTYPE)))[None]
    shift = torch.tensor([[2.5, -1.25]], dtype=DTYPE)
    grid = F.affine_grid(torch.cat([matrix, shift[:, :, None] / 16], 2), [1, 1, 32, 32], align_corners=False)
    wanted = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(warp(source, matrix, shift), wanted, atol=0.05, rtol=0)


def test_an_image_that_shrinks_is_averaged() -> None:
    """Of stripes a pixel wide the gray between them is left, and no pattern."""
    stripes = (torch.arange(32) % 2).to(DTYPE).expand(1, 1, 32, 32)
    found = warp(stripes, 2 * torch.eye(2, dtype=DTYPE)[None], torch.zeros(1, 2, dtype=DTYPE))
    middle = found[..., 10:22, 10:22]
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5))


def test_colors_are_literal_steps() -> None:
    source, numbers = images(3, 3, 4), torch.rand(5, 3, dtype=DTYPE)
    normal = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    found = recolor(source, ada_module._color_matrices(torch.zeros(5, 3), numbers, normal, 1.0))
    for n in range(3):
        x = (source[n] + 0.2 * normal[0, n]) * 2 ** (0.5 * normal[1, n])
        if numbers[0, n] >= 0.5:
            x = x - 2 * x.mean(0)
        angle = (2 * numbers[1, n] - 1) * math.pi
        gray = x.mean(0)
        around = torch.stack([x[2] - x[1], x[0] - x[2], x[1] - x[0]]) / math.sqrt(3)
        x = gray + (x - gray) * angle.cos() + around * angle.sin()
        x = gray + (x - gray) * 2 ** normal[2, n]
        torch.testing.assert_close(found[n], x)


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_changes_with_probability_0_and_each_image_its_own_way_with_1(channels: int) -> None:
    source = images(1, channels, 16).expand(8, -1, -1, -1)
    assert torch.equal(ada(source, context(), "reals", 0.0), source)
    found = ada(source, context(), "reals", 1.0)
    assert found.isfinite().all()
    assert all(not torch.equal(found[one], found[other]) for one in range(8) for other in range(one))
    assert torch.equal(ada(source, context(), "reals", 1.0), found)
    assert not torch.equal(ada(source, context(), "fakes", 1.0), found)
    assert not torch.equal(ada(source, context(1), "reals", 1.0), found)


def test_half_of_the_images_are_changed_by_each_part_with_probability_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ada_module, "recolor", lambda images, _: images)
    monkeypatch.setattr(ada_module, "warp", lambda images, *_: images)
    source = images(2000, 1, 8)
    changed = (ada(source, context(), "reals", 0.3) != source).flatten(1).any(1).to(DTYPE).mean()
    assert float(changed) == pytest.approx(0.3, abs=0.04)


def test_images_warped_in_parts_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source, weight = images(5, 3, 8).requires_grad_(), torch.rand(5, 3, 8, 8, dtype=DTYPE)
    found = []
    for most in (2**24, 2 * 2 * 8**3, 1):
        monkeypatch.setattr(ada_module, "_MOST_WEIGHTS", most)
        result = ada(source, context(), "reals", 1.0)
        (gradient,) = torch.autograd.grad((result * weight).sum(), source)
        found.append((result, gradient))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_gradients_are_those_of_finite_differences() -> None:
    source = images(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ada(x, context(), "reals", 0.8), source)
    assert torch.autograd.gradgradcheck(lambda x: ada(x, context(), "reals", 0.8), source)


def test_places_are_exact_also_under_autocast() -> None:
    """Real images are float32 there, and a generator's bfloat16: a warp of other places would tell them apart."""
    exact = Context(0, 0.0, 0, 0, torch.device("cpu"), torch.float32)
    source = images(2, 3, 256).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = ada(source, exact, "here", 1.0)
    torch.testing.assert_close(found, ada(source.float(), exact, "here", 1.0), rtol=0, atol=0)
