"""SAGAN (Zhang et al. 2018) in the plain form of Silva, Advanced GANs: convolutions without residual blocks."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

from torch import Tensor, nn

from distgan.models.attention import Attention, AttentionSize, SelfAttention2d, attention_stage
from distgan.models.layers import (
    Activation,
    Epsilon,
    Initialization,
    KernelSize,
    Momentum,
    Slope,
    SpectralNorm,
    Strides,
    Width,
    Widths,
    activation_layer,
    initialize,
    normalize_spectrally,
    resampling_strides,
    same_convolution,
    same_transposed_convolution,
    stage_widths,
)


class Generator(nn.Module):
    """Latents (N, latent_dim) to images (N, channels, image_size, image_size) in [-1, 1].

    A dense layer to 4x4 with the activation, then a transposed convolution without bias a stride, each with batch
    normalization and the activation; self-attention after the stage `attention_at` pixels wide (by default 32, or
    half the image); a 3x3 convolution and tanh. All weights are spectrally normalized. `width` is the channels of
    the last stage; they double towards the latent. At 128 pixels it is the source's; less has fewer stages.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        latent_dim: int,
        width: Width = 16,
        widths: Widths = None,
        strides: Strides = None,
        kernel_size: KernelSize = 4,
        activation: Activation = "relu",
        slope: Slope = 0.1,
        norm_momentum: Momentum = 0.1,
        norm_eps: Epsilon = 1e-3,
        attention: Attention = "plain",
        attention_at: AttentionSize | None = None,
        spectral_norm: SpectralNorm = True,
        init: Initialization = "glorot",
    ) -> None:
        super().__init__()
        stage_strides = resampling_strides(image_size, strides)
        hidden = stage_widths(width, widths, len(stage_strides) + 1)[::-1]
        layers: list[nn.Module] = [
            nn.Linear(latent_dim, hidden[0] * 16),
            nn.Unflatten(1, (hidden[0], 4, 4)),
            activation_layer(activation, slope),
        ]
        stages = []
        for stride, inputs, outputs in zip(stage_strides, hidden, hidden[1:], strict=False):
            stages.append(
                [
                    same_transposed_convolution(inputs, outputs, kernel_size, stride, bias=False),
                    nn.BatchNorm2d(outputs, eps=norm_eps, momentum=norm_momentum),
                    activation_layer(activation, slope),
                ]
            )
        if attention != "none":
            attended = attention_stage(attention_at, image_size, [4 * size for size in accumulate(stage_strides, mul)])
            stages[attended].append(SelfAttention2d(hidden[attended + 1], attention))
        layers += [layer for stage in stages for layer in stage]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden[-1], channels, 3, padding=1), nn.Tanh())
        initialize(self, init)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.layers(latents)
        return images


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) in [-1, 1] to unbounded logits (N,).

    A convolution with bias and the activation a stride down to 4x4, self-attention after the stage `attention_at`
    pixels wide (by default 32, or half the image), and a dense layer. All weights are spectrally normalized. `width`
    is the channels of the first stage; they double towards the logit. The source's text has a `slope` of 0.02, its
    code 0.1.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        width: Width = 32,
        widths: Widths = None,
        strides: Strides = None,
        kernel_size: KernelSize = 4,
        activation: Activation = "leaky_relu",
        slope: Slope = 0.1,
        attention: Attention = "plain",
        attention_at: AttentionSize | None = None,
        spectral_norm: SpectralNorm = True,
        init: Initialization = "glorot",
    ) -> None:
        super().__init__()
        stage_strides = resampling_strides(image_size, strides)
        hidden = stage_widths(width, widths, len(stage_strides))
        stages = []
        for stride, inputs, outputs in zip(stage_strides, [channels, *hidden], hidden, strict=False):
            convolution = same_convolution(inputs, outputs, kernel_size, stride, bias=True)
            stages.append([*convolution, activation_layer(activation, slope)])
        if attention != "none":
            sizes = [image_size // size for size in accumulate(stage_strides, mul)]
            attended = attention_stage(attention_at, image_size, sizes)
            stages[attended].append(SelfAttention2d(hidden[attended], attention))
        layers = [layer for stage in stages for layer in stage]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(hidden[-1] * 16, 1))
        initialize(self, init)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits.flatten()
