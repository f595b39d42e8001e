"""R3GAN (Huang et al. 2024, arXiv 2501.05441): residual networks without normalization layers, a mirror-image pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

from distgan.models.layers import Width, Widths, resampling_strides

MaxWidth = Annotated[int, Ge(1), Le(4096), Doc("most channels of a stage; they double from width inwards up to here")]

GroupSize = Annotated[int, Ge(1), Le(4096), Doc("channels of a group in the 3x3 convolutions")]

Blocks = Annotated[int, Ge(1), Le(64), Doc("residual blocks of each stage")]

_SLOPE = 0.2

# The gain of LeakyReLU, with which its output has the variance of its input.
_GAIN = math.sqrt(2 / (1 + _SLOPE**2))


class Generator(nn.Module):
    """Latents (N, latent_dim), with num_classes also labels (N,), to images (N, channels, image_size, image_size).

    A dense layer scales a learned 4x4 map of each channel; stages of residual blocks follow, each but the first after
    an up-sampling by two, and a 1x1 convolution. The values are not bounded: those outside of [-1, 1] are clipped in
    pictures. A label is a learned vector of latent_dim numbers beside the latent.

    `width` is the channels next to the image; inwards they double up to `max_width`. The published networks are
    width 768 for 32 pixels, 384 for 64, 96 for 256.

    Raises ValueError where `group_size` does not divide twice the channels of a stage.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        latent_dim: int,
        num_classes: int | None = None,
        width: Width = 768,
        max_width: MaxWidth = 768,
        widths: Widths = None,
        group_size: GroupSize = 16,
        blocks: Blocks = 2,
    ) -> None:
        super().__init__()
        hidden = _stage_widths(image_size, width, max_width, widths)[::-1]
        self.label = None if num_classes is None else nn.Embedding(num_classes, latent_dim)
        self.dense = nn.Linear(latent_dim * (1 if num_classes is None else 2), hidden[0], bias=False)
        self.maps = ChannelMaps(hidden[0])
        self.stages = nn.ModuleList([_stage(hidden[0], group_size, blocks)])
        for inputs, outputs in pairwise(hidden):
            change = [] if inputs == outputs else [nn.Conv2d(inputs, outputs, 1, bias=False)]
            self.stages.append(nn.Sequential(*change, Upsample(), *_stage(outputs, group_size, blocks)))
        self.last = nn.Conv2d(hidden[-1], channels, 1, bias=False)
        _initialize(self)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.label is not None:
            latents = torch.cat([latents, self.label(labels)], 1)
        x: Tensor = self.maps(self.dense(latents))
        for stage in self.stages:
            x = stage(x)
        images: Tensor = self.last(x)
        return images


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size), with num_classes also labels (N,), to unbounded logits (N,).

    The generator's stages in the reverse order, each but the last before a down-sampling by two; then a 4x4 convolution
    of each channel by itself, and a dense layer. With labels the logit is the product of the features and a learned
    vector of the label.

    `width`, `max_width`, `group_size` and `blocks` are those of the generator.

    Raises ValueError where `group_size` does not divide twice the channels of a stage.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        num_classes: int | None = None,
        width: Width = 768,
        max_width: MaxWidth = 768,
        widths: Widths = None,
        group_size: GroupSize = 16,
        blocks: Blocks = 2,
    ) -> None:
        super().__init__()
        hidden = _stage_widths(image_size, width, max_width, widths)
        features = hidden[-1]
        self.first = nn.Conv2d(channels, hidden[0], 1, bias=False)
        self.stages = nn.ModuleList()
        for inputs, outputs in pairwise(hidden):
            change = [] if inputs == outputs else [nn.Conv2d(inputs, outputs, 1, bias=False)]
            self.stages.append(nn.Sequential(*_stage(inputs, group_size, blocks), Downsample(), *change))
        self.stages.append(_stage(features, group_size, blocks))
        self.pool = nn.Conv2d(features, features, 4, groups=features, bias=False)
        self.dense = nn.Linear(features, 1 if num_classes is None else features, bias=False)
        self.label = None if num_classes is None else nn.Embedding(num_classes, features)
        _initialize(self)
        if self.label is not None:
            nn.init.normal_(self.label.weight, 0, 1 / math.sqrt(features * self.label.num_embeddings))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x: Tensor = self.first(images)
        for stage in self.stages:
            x = stage(x)
        features: Tensor = self.dense(self.pool(x).flatten(1))
        return features.flatten() if self.label is None else (features * self.label(labels)).sum(1)


class ChannelMaps(nn.Module):
    """(N, channels) to (N, channels, 4, 4): each number times the learned map of its channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, None, None] * self.weight


class Block(nn.Module):
    """x + a 1x1 convolution to twice the channels, a 3x3 one in groups, and a 1x1 one back; LeakyReLU between them."""

    def __init__(self, channels: int, group_size: int) -> None:
        super().__init__()
        inner = 2 * channels
        if inner % group_size:
            raise ValueError(f"group_size {group_size} does not divide {inner}, twice the {channels} channels")
        self.expand = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_size)
        self.reduce = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.leaky_relu(self.mix(F.leaky_relu(self.expand(x), _SLOPE)), _SLOPE)
        found: Tensor = x + self.reduce(inner)
        return found


class Upsample(nn.Module):
    """Twice the height and width, by the filter [1, 3, 3, 1] in both directions; zeros beyond the border."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv_transpose2d(x, 4 * _filter(x).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


class Downsample(nn.Module):
    """Half the height and width, by the filter [1, 3, 3, 1] in both directions; zeros beyond the border."""

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, _filter(x).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def _filter(x: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
    return taps[:, None] * taps


def _stage_widths(image_size: int, width: int, max_width: int, widths: Sequence[int] | None) -> list[int]:
    """Channels of each stage from the image inwards."""
    count = len(resampling_strides(image_size, None)) + 1
    if widths is None:
        return [min(width * 2**stage, max(width, max_width)) for stage in range(count)]
    if len(widths) != count:
        raise ValueError(f"widths has {len(widths)} entries, the network has {count} stages")
    return list(widths)


def _stage(channels: int, group_size: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, group_size) for _ in range(blocks)))


def _initialize(network: nn.Module) -> None:
    """Draws the weights from N(0, g²/fan-in), g = 1 outside of blocks.

    The first two convolutions of each of the network's L blocks have g = √(2/1.04) L^(-1/4), their last ones begin at
    zero (Zhang et al. 2019, Fixup, with three layers a block).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0, 1 / math.sqrt(module.num_embeddings))
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    for block in blocks:
        for layer in (block.expand, block.mix):
            gain = _GAIN * len(blocks) ** -0.25
            nn.init.normal_(layer.weight, 0, gain / math.sqrt(layer.weight[0].numel()))
        nn.init.zeros_(block.reduce.weight)
