"""Residual blocks and widths of SNGAN (Miyato et al. 2018) and SAGAN (Zhang et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from distgan.models.layers import Initialization, initialize, stage_widths

Form = Annotated[Literal["sngan", "sagan"], Doc("whose code the blocks and widths follow")]

ResidualGain = Annotated[
    float, Gt(0), Le(10), Doc("factor of the initial Glorot weights in the 3x3 convolutions of residual blocks")
]

# The ResidualGain in the code of Miyato et al. and Gulrajani et al.; Zhang et al. have 1.
SOURCES_GAIN = math.sqrt(2)


class GeneratorBlock(nn.Module):
    """(N, inputs, H, W) to (N, outputs, 2H, 2W): normalize, ReLU, up-sample, 3x3, normalize, ReLU, 3x3.

    The shortcut is a 1x1 convolution before its nearest up-sampling, not after: the same result for less work.
    """

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        h = self.conv1(_upsample(F.relu(self.norm1(x, *labels))))
        h = self.conv2(F.relu(self.norm2(h, *labels)))
        out: Tensor = _upsample(self.shortcut(x)) + h
        return out


class DiscriminatorBlock(nn.Module):
    """(N, inputs, H, W) to (N, outputs, H, W), or half of H and W: ReLU, 3x3, ReLU, 3x3, average over 2x2.

    The `first` block, next to the image, begins without the ReLU. The shortcut is a 1x1 convolution after the average,
    or the identity where neither channels nor size change. Between the two convolutions are `middle` channels.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, *, downsample: bool, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.conv1 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.conv2 = nn.Conv2d(middle, outputs, 3, padding=1)
        self.pool = nn.AvgPool2d(2) if downsample else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if downsample or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.pool(self.conv2(F.relu(h)))
        out: Tensor = self.shortcut(self.pool(x)) + h
        return out


def num_upsamplings(image_size: int) -> int:
    """The number of doublings from 4x4. Raises ValueError for an image size without a published residual network."""
    if image_size not in {32, 64, 128}:
        raise ValueError(
            f"image_size={image_size}: residual networks are made for images of 32, 64 and 128 pixels; "
            f"use another network or set image_size"
        )
    return int(math.log2(image_size // 4))


def residual_widths(
    image_size: int, width: int, widths: Sequence[int] | None, count: int, form: Literal["sngan", "sagan"]
) -> list[int]:
    """Channels of `count` stages from the image inwards, as the sources have them.

    `width` everywhere at 32 pixels (Miyato et al., table 4); above that it doubles, and the last two are equal
    (Miyato et al., table 6; Zhang et al.), but not in SNGAN's form for 64 pixels. `widths` replaces them. Raises
    ValueError when their number is not `count`.
    """
    if widths is not None or doubles_throughout(image_size, form):
        return stage_widths(width, widths, count)
    if image_size == 32:
        return [width] * count
    doubled = stage_widths(width, None, count - 1)
    return [*doubled, doubled[-1]]


def doubles_throughout(image_size: int, form: Literal["sngan", "sagan"]) -> bool:
    """Whether all stages double: SNGAN's form at 64 pixels. SAGAN's, which has no source, is a shortened 128 one."""
    return form == "sngan" and image_size == 64


def initialize_residual(network: nn.Module, init: Initialization, gain: float) -> None:
    """As `initialize`; Glorot-uniform weights of the blocks' 3x3 convolutions are `gain` times as large.

    Shortcuts and all other layers have a gain of 1.
    """
    initialize(network, init)
    if init == "glorot":
        with torch.no_grad():
            for block in network.modules():
                if isinstance(block, GeneratorBlock | DiscriminatorBlock):
                    block.conv1.weight.mul_(gain)
                    block.conv2.weight.mul_(gain)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
