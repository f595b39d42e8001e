"""The conditional GAN's networks: the source's shapes and counts, and where the label goes."""

from __future__ import annotations

import pytest
import torch

from distgan.models.cgan import Discriminator, Generator
from distgan.models.layers import one_hot, with_label_planes
from layer_table import layer_table, meta, parameters, running_statistics

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

LABELS = torch.zeros(2, dtype=torch.int64, device="meta")


def test_generator_is_the_sources() -> None:
    network = meta(Generator, image_size=64, channels=3, latent_dim=32, num_classes=2)
    assert layer_table(network, torch.empty(2, 32, device="meta"), LABELS) == [
        ((128, 4, 4), 69_632),
        ((128, 4, 4), 512),
        ((128, 8, 8), 262_144),
        ((128, 8, 8), 512),
        ((128, 16, 16), 262_144),
        ((128, 16, 16), 512),
        ((64, 32, 32), 131_072),
        ((64, 32, 32), 256),
        ((3, 64, 64), 3_075),
    ]


def test_discriminator_is_the_sources() -> None:
    network = meta(Discriminator, image_size=64, channels=3, num_classes=2)
    assert layer_table(network, torch.empty(2, 3, 64, 64, device="meta"), LABELS) == [
        ((64, 32, 32), 5_184),
        ((128, 16, 16), 131_200),
        ((128, 8, 8), 262_272),
        ((128, 4, 4), 262_272),
        ((1, 1, 1), 2_049),
    ]


@pytest.mark.parametrize(
    ("num_classes", "channels", "generator", "discriminator"),
    [(2, 3, 728_963, 662_977), (10, 3, 745_347, 671_169), (10, 1, 743_297, 669_121)],
)
def test_counts_are_the_sources(num_classes: int, channels: int, generator: int, discriminator: int) -> None:
    context = {"image_size": 64, "channels": channels, "num_classes": num_classes}
    network = meta(Generator, **context, latent_dim=32)
    assert (parameters(network), running_statistics(network)) == (generator, 896)
    network = meta(Discriminator, **context)
    assert (parameters(network), running_statistics(network)) == (discriminator, 0)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("num_classes", [2, 4096])
def test_every_image_size_and_number_of_classes(size: int, num_classes: int) -> None:
    generator = meta(Generator, image_size=size, channels=1, latent_dim=5, num_classes=num_classes, width=2)
    images = generator(torch.empty(2, 5, device="meta"), LABELS)
    assert images.shape == (2, 1, size, size)
    assert meta(Discriminator, image_size=size, channels=1, num_classes=num_classes, width=2)(images, LABELS).shape == (
        2,
    )


def test_options_reach_the_layers() -> None:
    options = {"image_size": 32, "channels": 1, "num_classes": 3, "strides": [4, 2], "widths": [5, 6]}
    table = layer_table(meta(Generator, latent_dim=4, **options), torch.empty(2, 4, device="meta"), LABELS)
    assert [shape for shape, _ in table] == [(6, 4, 4), (6, 4, 4), (5, 16, 16), (5, 16, 16), (1, 32, 32)]
    table = layer_table(meta(Discriminator, **options), torch.empty(2, 1, 32, 32, device="meta"), LABELS)
    assert [shape for shape, _ in table] == [(5, 8, 8), (6, 4, 4), (1, 1, 1)]
    options |= {"full_size_stage": True, "kernel_size": 3, "strides": None, "widths": None, "width": 2}
    table = layer_table(meta(Discriminator, **options), torch.empty(2, 1, 32, 32, device="meta"), LABELS)
    assert [shape for shape, _ in table] == [(2, 32, 32), (4, 16, 16), (4, 8, 8), (4, 4, 4), (1, 1, 1)]


def test_labels_become_rows_and_planes() -> None:
    labels = torch.tensor([2, 0])
    rows = one_hot(labels, 3, torch.float64)
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert rows.dtype == torch.float64
    images = torch.rand(2, 2, 4, 4)
    joined = with_label_planes(images, labels, 3)
    assert joined.shape == (2, 5, 4, 4)
    assert torch.equal(joined[:, :2], images)
    assert torch.equal(joined[:, 2:], rows.float()[:, :, None, None].expand(2, 3, 4, 4))


def test_only_the_images_own_label_changes_it() -> None:
    torch.manual_seed(0)
    context = {"image_size": 16, "channels": 1, "num_classes": 4}
    generator = Generator(**context, latent_dim=3, width=4).eval()
    discriminator = Discriminator(**context, width=4).eval()
    latents, labels = torch.randn(3, 3), torch.tensor([0, 1, 2])
    changed = torch.tensor([0, 3, 2])
    images, others = generator(latents, labels), generator(latents, changed)
    same = [torch.allclose(one, other, atol=1e-7) for one, other in zip(images, others, strict=True)]
    assert same == [True, False, True]
    assert torch.isclose(discriminator(images, labels), discriminator(images, changed)).tolist() == [True, False, True]


def test_the_penaltys_gradient_reaches_labels_weights() -> None:
    """Double backward through the label planes."""
    discriminator = Discriminator(image_size=16, channels=1, num_classes=2, width=4)
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(images, torch.tensor([0, 1])).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None for name, p in discriminator.named_parameters() if "weight" in name)
