"""Inception-v3 as the TensorFlow graph of 2015-12-05 computes it: the network of the published FID.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), as that graph has it: no
auxiliary classifier, 1,008 outputs, average pools that leave their padding out of the mean, and a maximum pool where
the paper's last block has an average. The parameters have the names of the PyTorch port of its weights
(`pt_inception-2015-12-05`), so that its state dict loads strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3

IMAGE_SIZE = 299

FEATURES = 2048

NUM_CLASSES = 1008

Pool = Callable[[Tensor], Tensor]


def average_pool(x: Tensor) -> Tensor:
    """Mean over 3x3 windows, without the padding; keeps the size."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    """Maximum over 3x3 windows; keeps the size."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halving_pool(x: Tensor) -> Tensor:
    """Maximum over 3x3 windows at stride 2, without padding."""
    return F.max_pool2d(x, 3, stride=2)


class BasicConv2d(nn.Module):
    """Convolution without bias, batch normalization, ReLU. "Same" padding for kernels that keep the size."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int | tuple[int, int], stride: int = 1, same: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = (height // 2, width // 2) if same and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionA(nn.Module):
    """At 35x35: 1x1, 5x5, twice 3x3, and pooled: 224 channels and those of the pool."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.branch_pool = BasicConv2d(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        fives = self.branch5x5_2(self.branch5x5_1(x))
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), fives, threes, self.branch_pool(average_pool(x))], 1)


class InceptionB(nn.Module):
    """35x35 to 17x17, 288 to 768 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(288, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(288, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), threes, halving_pool(x)], 1)


class InceptionC(nn.Module):
    """At 17x17, 768 channels: 1x1, 7x7 and twice 7x7 in rows and columns of `hidden` channels, and pooled."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = BasicConv2d(768, 192, 1)
        self.branch7x7_1 = BasicConv2d(768, hidden, 1)
        self.branch7x7_2 = BasicConv2d(hidden, hidden, row)
        self.branch7x7_3 = BasicConv2d(hidden, 192, column)
        self.branch7x7dbl_1 = BasicConv2d(768, hidden, 1)
        self.branch7x7dbl_2 = BasicConv2d(hidden, hidden, column)
        self.branch7x7dbl_3 = BasicConv2d(hidden, hidden, row)
        self.branch7x7dbl_4 = BasicConv2d(hidden, hidden, column)
        self.branch7x7dbl_5 = BasicConv2d(hidden, 192, row)
        self.branch_pool = BasicConv2d(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(average_pool(x))], 1)


class InceptionD(nn.Module):
    """17x17 to 8x8, 768 to 1,280 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(768, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(768, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        threes = self.branch3x3_2(self.branch3x3_1(x))
        sevens = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([threes, sevens, halving_pool(x)], 1)


class InceptionE(nn.Module):
    """At 8x8, to 2,048 channels: 1x1, 3x3 and twice 3x3 that end in a row beside a column, and pooled."""

    def __init__(self, inputs: int, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = BasicConv2d(inputs, 320, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1))
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1))
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once, twice = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(self.pool(x)),
        ]
        return torch.cat(branches, 1)


class InceptionV3(nn.Module):
    """(N, 3, 299, 299), RGB as `(x - 128) / 128` of 8-bit values. Randomly initialized until a state dict is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, same=False)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB()
        self.Mixed_6b = InceptionC(128)
        self.Mixed_6c = InceptionC(160)
        self.Mixed_6d = InceptionC(160)
        self.Mixed_6e = InceptionC(192)
        self.Mixed_7a = InceptionD()
        self.Mixed_7b = InceptionE(1280, average_pool)
        self.Mixed_7c = InceptionE(2048, max_pool)
        self.fc = nn.Linear(FEATURES, NUM_CLASSES)

    def stages(self) -> Sequence[tuple[str, Callable[[Tensor], Tensor]]]:
        """All that lies between an image and its features, in order and by name."""
        return [
            ("Conv2d_1a_3x3", self.Conv2d_1a_3x3),
            ("Conv2d_2a_3x3", self.Conv2d_2a_3x3),
            ("Conv2d_2b_3x3", self.Conv2d_2b_3x3),
            ("pool_1", halving_pool),
            ("Conv2d_3b_1x1", self.Conv2d_3b_1x1),
            ("Conv2d_4a_3x3", self.Conv2d_4a_3x3),
            ("pool_2", halving_pool),
            *((name, block) for name, block in self.named_children() if name.startswith("Mixed_")),
        ]

    def pooled_features(self, x: Tensor) -> Tensor:
        """The mean of the last block over its 8x8 positions, (N, 2048): what the published FID compares."""
        for _, stage in self.stages():
            x = stage(x)
        return x.mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """(N, 2048) features to (N, 1008) logits without a bias, which the published Inception Score leaves out."""
        return F.linear(features, self.fc.weight)
