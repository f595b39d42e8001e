"""R3GAN's networks: the published sizes, resampling, and the state at the start."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distgan.models.r3gan import Block, ChannelMaps, Discriminator, Downsample, Generator, Upsample
from layer_table import meta, parameters

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


# Image size, classes, width, max_width, group size; thousands of parameters of both networks.
@pytest.mark.parametrize(
    ("size", "classes", "width", "max_width", "group_size", "thousands"),
    [
        (32, 10, 768, 768, 16, (20_782, 21_281)),
        (32, None, 768, 768, 16, (20_732, 20_684)),
        (64, None, 384, 768, 16, (22_430, 22_381)),
        (256, None, 96, 768, 16, (23_058, 23_010)),
        (32, 1000, 1536, 1536, 32, (82_914, 86_549)),
        (64, 1000, 1536, 1536, 32, (103_570, 107_205)),
    ],
)
def test_the_published_sizes(
    size: int, classes: int | None, width: int, max_width: int, group_size: int, thousands: tuple[int, int]
) -> None:
    options = {
        "image_size": size, "channels": 3, "num_classes": classes,
        "width": width, "max_width": max_width, "group_size": group_size,
    }  # fmt: skip
    networks = meta(Generator, latent_dim=64, **options), meta(Discriminator, **options)
    assert tuple(round(parameters(network) / 1000) for network in networks) == thousands


def test_resampling_is_bilinear_away_from_the_border() -> None:
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    inside = (..., slice(1, -1), slice(1, -1))
    doubled = F.interpolate(images, scale_factor=2, mode="bilinear")
    halved = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    torch.testing.assert_close(Upsample()(images)[inside], doubled[inside])
    torch.testing.assert_close(Downsample()(images)[inside], halved[inside])


def test_first_weights() -> None:
    torch.manual_seed(0)
    network = Generator(image_size=32, channels=3, latent_dim=64, num_classes=10, width=192, max_width=384)
    assert network.label is not None
    found = {
        "label": network.label.weight.std() * math.sqrt(10),
        "dense": network.dense.weight.std() * math.sqrt(128),
        "maps": network.maps.weight.std(),
        "last": network.last.weight.std() * math.sqrt(192),
    }
    blocks = [layer for layer in network.modules() if isinstance(layer, Block)]
    assert len(blocks) == 8
    gain = math.sqrt(2 / 1.04) / 8**0.25
    for number, block in enumerate(blocks):
        assert not block.reduce.weight.any()
        assert not block.expand.bias.any()
        found[f"expand {number}"] = block.expand.weight.std() * math.sqrt(block.expand.in_channels) / gain
        found[f"mix {number}"] = block.mix.weight.std() * math.sqrt(16 * 9) / gain
    assert {name: value.item() for name, value in found.items()} == pytest.approx(dict.fromkeys(found, 1.0), rel=0.05)


def test_at_the_start_blocks_change_nothing_and_logits_are_small() -> None:
    torch.manual_seed(0)
    images = torch.randn(64, 3, 32, 32)
    network = Discriminator(image_size=32, channels=3, num_classes=10, width=96, max_width=96)
    logits = network(images, torch.arange(64) % 10)
    for block in [layer for layer in network.modules() if isinstance(layer, Block)]:
        features = torch.randn(1, 96, 4, 4)
        assert torch.equal(block(features), features)
    assert logits.shape == (64,)
    assert 0 < logits.std() < 1
    generator = Generator(image_size=32, channels=1, latent_dim=8, width=96, max_width=96)
    assert isinstance(generator.maps, ChannelMaps)
    images = generator(torch.randn(64, 8))
    assert 0.3 < images.std() < 3  # not bounded by a last non-linearity
    assert images.abs().max() > 1


def test_labels_change_images_and_logits() -> None:
    torch.manual_seed(0)
    options = {"image_size": 16, "channels": 1, "num_classes": 3, "width": 16, "max_width": 16}
    generator, discriminator = Generator(latent_dim=8, **options), Discriminator(**options)  # type: ignore[arg-type]
    latents, labels = torch.randn(1, 8).expand(3, 8), torch.arange(3)
    images = generator(latents, labels)
    logits = discriminator(images[:1].expand(3, 1, 16, 16), labels)
    for found in (images.flatten(1), logits[:, None]):
        assert all(not torch.equal(found[one], found[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_widths_from_the_image_inwards(network: type[nn.Module]) -> None:
    options = {"latent_dim": 8} if network is Generator else {}
    found = meta(network, image_size=32, channels=1, width=8, max_width=24, **options)
    same = meta(network, image_size=32, channels=1, widths=[8, 16, 24, 24], **options)
    assert [value.shape for value in found.state_dict().values()] == [v.shape for v in same.state_dict().values()]
