"""Networks of your own: a generator that grows by pixel shuffles, and a discriminator that judges patches.

    export PYTHONPATH=$PWD/examples
    distgan train quickstart data.url=bricks \\
        "generator={network: small_network:PixelShuffleGenerator, width: 32}" \\
        "discriminator={network: small_network:PatchDiscriminator, width: 32}" --no-ray --name small
"""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

Width = Annotated[int, Ge(1), Le(4096)]


class PixelShuffleGenerator(nn.Module):
    """Latents (N, latent_dim) to images (N, channels, image_size, image_size) in [-1, 1].

    From 4x4 on, each stage doubles the size by a 3x3 convolution to four times the channels and a pixel shuffle (Shi
    et al. 2016), which trades four channels for four pixels. `width` is the channels of the last hidden stage.
    """

    # image_size, channels and latent_dim come from the configuration's top level; width is generator.width.
    def __init__(self, *, image_size: int, channels: int, latent_dim: int, width: Width = 32) -> None:
        super().__init__()
        stages = int(math.log2(image_size // 4))
        widths = [width * 2 ** (stages - 1 - stage) for stage in range(stages)]
        layers: list[nn.Module] = [nn.Linear(latent_dim, widths[0] * 16), nn.Unflatten(1, (widths[0], 4, 4))]
        for inputs, outputs in zip(widths, [*widths[1:], channels], strict=True):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
            layers += [nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.layers(latents)
        return images


class PatchDiscriminator(nn.Module):
    """Images to logits (N, 1, H/4, W/4): one for each patch of 15x15 pixels (Isola et al. 2017).

    Losses are means over all logits. It has no batch statistics, so it goes with gradient penalties.
    """

    def __init__(self, *, channels: int, width: Width = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits
