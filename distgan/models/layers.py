"""Layers and conventions that the networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm
from torch.nn.utils.parametrize import register_parametrization
from typing_extensions import Doc

# Types of the networks' options, each with its range and a line for `distgan keys`.
Activation = Annotated[Literal["relu", "leaky_relu"], Doc("nonlinearity after each hidden layer")]

Initialization = Annotated[Literal["normal", "glorot"], Doc("initial weights: N(0, 0.02), or Glorot-uniform")]

Slope = Annotated[float, Ge(0), Lt(1), Doc("slope of leaky_relu below 0")]

Slopes = Annotated[list[Slope] | None, Doc("slope of each stage from the image inwards, instead of slope")]

Dropout = Annotated[float, Ge(0), Lt(1), Doc("probability of dropping a hidden value")]

Width = Annotated[int, Ge(1), Le(4096), Doc("channels of the stage next to the image; the other stages follow it")]

Widths = Annotated[list[Width] | None, Doc("channels of each stage from the image inwards, instead of width")]

Strides = Annotated[list[Annotated[int, Ge(1)]] | None, Doc("change of size at each stage; 2 each by default")]

FullSizeStage = Annotated[bool, Doc("one more stage, of stride 1, next to the image")]

Momentum = Annotated[float, Gt(0), Le(1), Doc("weight of the new batch in batch normalization's running statistics")]

Epsilon = Annotated[float, Gt(0), Doc("added to the variance in batch normalization")]

KernelSize = Annotated[int, Ge(2), Le(9), Doc("pixels a side of the convolutions' kernels")]

Upsampling = Annotated[Literal["transposed", "nearest"], Doc("transposed convolutions, or repeated pixels convolved")]

LastBias = Annotated[bool, Doc("a bias in the last convolution")]

_MAX_CHANNELS = 65_536


def activation_layer(name: Activation, slope: float) -> nn.Module:
    """ReLU, or LeakyReLU with the given negative slope; in place."""
    return nn.ReLU(inplace=True) if name == "relu" else nn.LeakyReLU(slope, inplace=True)


def resampling_strides(image_size: int, strides: Sequence[int] | None) -> list[int]:
    """Strides of the stages between 4x4 and `image_size`; by default 2 each.

    Raises ValueError where their product does not lead from 4 to `image_size`.
    """
    if strides is None:
        return [2] * int(math.log2(image_size // 4))
    if math.prod(strides) * 4 != image_size:
        raise ValueError(f"strides {list(strides)} lead from 4 to {4 * math.prod(strides)}, not to {image_size}")
    return list(strides)


def stage_widths(width: int, widths: Sequence[int] | None, num_stages: int) -> list[int]:
    """Channels of each stage, from the one next to the image inwards: width, 2·width, 4·width, …

    `widths`, in the same order, replaces them. Raises ValueError when their number is not `num_stages`, or when
    doubling leads beyond 65,536 channels.
    """
    if widths is None:
        if width * 2 ** (num_stages - 1) > _MAX_CHANNELS:
            raise ValueError(f"width {width} doubled at each of {num_stages} stages is too much; give widths instead")
        return [width * 2**stage for stage in range(num_stages)]
    if len(widths) != num_stages:
        raise ValueError(f"widths has {len(widths)} entries, the network has {num_stages} stages")
    return list(widths)


def stage_slopes(slope: float, slopes: Sequence[float] | None, num_stages: int) -> list[float]:
    """LeakyReLU's slope of each stage, from the one next to the image inwards: `slope` everywhere, or `slopes`.

    Raises ValueError when the number of `slopes` is not `num_stages`.
    """
    if slopes is None:
        return [slope] * num_stages
    if len(slopes) != num_stages:
        raise ValueError(f"slopes has {len(slopes)} entries, the network has {num_stages} stages")
    return list(slopes)


def same_convolution(inputs: int, outputs: int, kernel_size: int, stride: int, bias: bool) -> list[nn.Module]:
    """The layers of a convolution whose output is 1/stride of its input's height and width.

    An even kernel at stride 1 is padded by one more on the right and below. Raises ValueError for a kernel
    smaller than the stride.
    """
    if kernel_size < stride:
        raise ValueError(f"kernel_size {kernel_size} is smaller than the stride {stride}")
    if stride == 1:
        before, after = (kernel_size - 1) // 2, kernel_size // 2
        return [
            nn.ZeroPad2d((before, after, before, after)),
            nn.Conv2d(inputs, outputs, kernel_size, bias=bias),
        ]
    padding = math.ceil((kernel_size - stride) / 2)
    return [nn.Conv2d(inputs, outputs, kernel_size, stride, padding, bias=bias)]


def same_transposed_convolution(
    inputs: int, outputs: int, kernel_size: int, stride: int, bias: bool
) -> nn.ConvTranspose2d:
    """A transposed convolution whose output is `stride` times its input's height and width.

    Raises ValueError for a kernel smaller than the stride, or an even kernel at stride 1.
    """
    if kernel_size < stride:
        raise ValueError(f"kernel_size {kernel_size} is smaller than the stride {stride}")
    surplus = kernel_size - stride
    if stride == 1 and surplus % 2:
        raise ValueError(f"a transposed convolution of stride 1 needs an odd kernel_size, not {kernel_size}")
    return nn.ConvTranspose2d(
        inputs, outputs, kernel_size, stride, math.ceil(surplus / 2), output_padding=surplus % 2, bias=bias
    )


class LatentToImage(nn.Module):
    """Reshapes latents (N, latent_dim) to (N, latent_dim, 1, 1)."""

    def forward(self, latents: Tensor) -> Tensor:
        return latents[:, :, None, None]


def initialize(network: nn.Module, init: Initialization) -> None:
    """Draws all convolution, dense and embedding weights: N(0, 0.02) (Radford et al. 2015) or Glorot-uniform.

    Biases become zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            if init == "normal":
                nn.init.normal_(module.weight, 0.0, 0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels (N,) in [0, num_classes) as rows (N, num_classes) of zeros with a one in the label's place."""
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).to(dtype)


def with_label_planes(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Images (N, C, H, W) with a further channel for each class: ones for the image's label, zeros for the others."""
    planes = one_hot(labels, num_classes, images.dtype)[:, :, None, None]
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], 1)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalization of (N, channels, H, W) with a scale and a shift for each class.

    y = scale[label] · (x − μ) / √(σ² + eps) + shift[label], with μ, σ² over the batch, whatever its labels (de Vries
    et al. 2017, as Miyato & Koyama 2018 use it). Scales begin at 1, shifts at 0.
    """

    def __init__(self, channels: int, num_classes: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=False)
        self.scale = nn.Parameter(torch.ones(num_classes, channels))
        self.shift = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        # Not `self.scale[labels]`: the backward of indexing sums in no fixed order.
        scale, shift = (F.embedding(labels, each)[:, :, None, None] for each in (self.scale, self.shift))
        normalized: Tensor = self.norm(x)
        return scale * normalized + shift


SpectralNorm = Annotated[bool, Doc("divide the weights by their largest singular value")]


def normalize_spectrally(network: nn.Module) -> None:
    """Normalizes the weight of every convolution, dense layer and embedding of a network, in place.

    The last step of a constructor: the first vectors of the power iteration come from the weights as they are. Each
    training forward is one iteration, until `training.batch_statistics.PowerIteration` takes over.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            if module.weight.is_meta:
                outputs = 1 if isinstance(module, nn.ConvTranspose2d) else 0
                register_parametrization(module, "weight", _WithoutNumbers(module.weight, dim=outputs))
            else:
                spectral_norm(module)


class _WithoutNumbers(_SpectralNorm):
    """torch's spectral normalization for the device "meta": without power iterations, which take seconds there."""

    def __init__(self, weight: Tensor, dim: int) -> None:
        nn.Module.__init__(self)
        outputs = weight.shape[dim]
        self.register_buffer("_u", weight.new_empty(outputs))
        self.register_buffer("_v", weight.new_empty(weight.numel() // outputs))

    def forward(self, weight: Tensor) -> Tensor:
        return weight
