"""A generator and an objective of your own, which own-parts.yaml names; nothing in the package is edited.

examples/README.md says how to run them, and what the package asks of such classes.
"""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Le
from distgan.losses.objectives import Objective
from torch import Tensor, nn

from distgan.losses.rng import StepRng

Width = Annotated[int, Ge(1), Le(4096)]


class PixelShuffleGenerator(nn.Module):
    """Latents (N, latent_dim) to images (N, channels, image_size, image_size) in [-1, 1].

    From 4x4 on, each stage doubles the size by a 3x3 convolution to four times the channels and a pixel shuffle (Shi
    et al. 2016), which trades four channels for four pixels. `width` is the channels of the last hidden stage.
    """

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


class LeastSquares(Objective):
    """The least-squares GAN (Mao et al. 2017, equation 9): targets `real` for real images, 0 for fakes.

    The critic's loss is the mean of its two halves; the generator's target is `real` too.
    """

    def __init__(self, *, real: Annotated[float, Ge(0.1), Le(10)] = 1.0) -> None:
        self.real = real

    def critic_loss(self, real_logits: Tensor, fake_logits: Tensor, draws: StepRng) -> Tensor:
        return 0.5 * ((real_logits - self.real).square().mean() + fake_logits.square().mean())

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return (fake_logits - self.real).square().mean()
