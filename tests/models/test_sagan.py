"""SAGAN in its plain form: the source's shapes and counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from distgan.models.attention import SelfAttention2d
from distgan.models.sagan import Discriminator, Generator
from layer_table import layer_table, meta, parameters, running_statistics

pytestmark = pytest.mark.timeout(60)

NORMALIZED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def test_generator_is_the_sources() -> None:
    network = meta(Generator, image_size=128, channels=3, latent_dim=128)
    assert layer_table(network, torch.empty(2, 128, device="meta")) == [
        ((8192,), 1_056_768),
        ((256, 8, 8), 2_097_152),
        ((256, 8, 8), 1_024),
        ((128, 16, 16), 524_288),
        ((128, 16, 16), 512),
        ((64, 32, 32), 131_072),
        ((64, 32, 32), 256),
        ((64, 32, 32), 5_201),
        ((32, 64, 64), 32_768),
        ((32, 64, 64), 128),
        ((16, 128, 128), 8_192),
        ((16, 128, 128), 64),
        ((3, 128, 128), 435),
    ]
    assert (parameters(network), running_statistics(network)) == (3_856_868, 992)


def test_discriminator_is_the_sources() -> None:
    network = meta(Discriminator, image_size=128, channels=3)
    assert layer_table(network, torch.empty(2, 3, 128, 128, device="meta")) == [
        ((32, 64, 64), 1_568),
        ((64, 32, 32), 32_832),
        ((64, 32, 32), 5_201),
        ((128, 16, 16), 131_200),
        ((256, 8, 8), 524_544),
        ((512, 4, 4), 2_097_664),
        ((1,), 8_193),
    ]
    assert (parameters(network), running_statistics(network)) == (2_801_202, 0)
    slopes = [layer.negative_slope for layer in network.modules() if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.1] * 5


def test_every_weight_is_normalized_or_none() -> None:
    context = {"image_size": 128, "channels": 3}
    for network, more in ((Generator, {"latent_dim": 8}), (Discriminator, {})):
        layers = [layer for layer in meta(network, **context, **more).modules() if isinstance(layer, NORMALIZED)]
        assert len(layers) == (7 if network is Generator else 6) + 3
        assert all(is_parametrized(layer, "weight") for layer in layers)
        plain = meta(network, **context, **more, spectral_norm=False)
        assert not any(is_parametrized(layer) for layer in plain.modules())


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("attention", ["none", "plain", "pooled"])
def test_every_image_size(size: int, attention: str) -> None:
    generator = meta(Generator, image_size=size, channels=3, latent_dim=5, width=8, attention=attention)
    images = generator(torch.empty(3, 5, device="meta"))
    assert images.shape == (3, 3, size, size)
    discriminator = meta(Discriminator, image_size=size, channels=3, width=8, attention=attention)
    assert discriminator(images).shape == (3,)
    for network in (generator, discriminator):
        assert sum(isinstance(layer, SelfAttention2d) for layer in network.modules()) == (attention != "none")


@pytest.mark.parametrize(("attention_at", "width"), [(8, 64), (16, 32), (32, 16), (64, 8)])
def test_attention_at_a_chosen_size(attention_at: int, width: int) -> None:
    options = {"image_size": 64, "channels": 3, "attention_at": attention_at}
    table = layer_table(meta(Generator, latent_dim=4, width=8, **options), torch.empty(2, 4, device="meta"))
    counts = {8: parameters(SelfAttention2d(64)), 16: parameters(SelfAttention2d(32))}
    counts |= {32: parameters(SelfAttention2d(16)), 64: parameters(SelfAttention2d(8))}
    assert ((width, attention_at, attention_at), counts[attention_at]) in table


def test_strides_and_widths_reach_the_layers() -> None:
    options = {"image_size": 32, "channels": 1, "strides": [4, 2], "attention_at": 16, "kernel_size": 5}
    table = layer_table(meta(Generator, latent_dim=4, widths=[8, 16, 24], **options), torch.empty(2, 4, device="meta"))
    shapes = [shape for shape, _ in table]
    assert shapes == [(384,), *[(16, 16, 16)] * 3, *[(8, 32, 32)] * 2, (1, 32, 32)]
    options["attention_at"] = 8
    table = layer_table(meta(Discriminator, widths=[8, 16], **options), torch.empty(2, 1, 32, 32, device="meta"))
    assert [shape for shape, _ in table] == [(8, 8, 8), (8, 8, 8), (16, 4, 4), (1,)]
