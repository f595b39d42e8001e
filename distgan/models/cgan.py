"""Conditional GAN (Mirza & Osindero 2014) in the form of Foster, Generative Deep Learning, 2nd ed., ch. 4."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distgan.models import dcgan, wgan_gp
from distgan.models.layers import (
    Activation,
    Dropout,
    Epsilon,
    FullSizeStage,
    Initialization,
    KernelSize,
    LastBias,
    Momentum,
    Slope,
    Slopes,
    Strides,
    Upsampling,
    Width,
    Widths,
    one_hot,
    resampling_strides,
    with_label_planes,
)


def _widths(width: int, widths: list[int] | None, num_stages: int) -> list[int]:
    """As in the source: `width` channels in the stage next to the image, twice as many in all others."""
    return [width, *[2 * width] * (num_stages - 1)] if widths is None else widths


class Generator(nn.Module):
    """Latents (N, latent_dim) and labels (N,) to images (N, channels, image_size, image_size) in [-1, 1].

    DCGAN's generator on latents with the label's one-hot row behind them; its last convolution has a bias. `width`
    is the channels of the last hidden stage, all others have 2·width; `widths` counts from the image inwards.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        latent_dim: int,
        num_classes: int,
        width: Width = 64,
        widths: Widths = None,
        strides: Strides = None,
        full_size_stage: FullSizeStage = False,
        kernel_size: KernelSize = 4,
        upsampling: Upsampling = "transposed",
        activation: Activation = "leaky_relu",
        slope: Slope = 0.2,
        norm_momentum: Momentum = 0.1,
        norm_eps: Epsilon = 1e-3,
        last_bias: LastBias = True,
        init: Initialization = "normal",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.network = dcgan.Generator(
            image_size=image_size,
            channels=channels,
            latent_dim=latent_dim + num_classes,
            widths=_widths(width, widths, len(resampling_strides(image_size, strides)) + full_size_stage),
            strides=strides,
            full_size_stage=full_size_stage,
            kernel_size=kernel_size,
            upsampling=upsampling,
            activation=activation,
            slope=slope,
            norm_momentum=norm_momentum,
            norm_eps=norm_eps,
            last_bias=last_bias,
            init=init,
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.network(torch.cat([latents, one_hot(labels, self.num_classes, latents.dtype)], 1))
        return images


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) in [-1, 1] and labels (N,) to unbounded logits (N,).

    WGAN-GP's discriminator on images with a further channel for each class. `width` is the channels of the first stage,
    all others have 2·width.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        num_classes: int,
        width: Width = 64,
        widths: Widths = None,
        strides: Strides = None,
        full_size_stage: FullSizeStage = False,
        kernel_size: KernelSize = 4,
        activation: Activation = "leaky_relu",
        slope: Slope = 0.2,
        slopes: Slopes = None,
        dropout: Dropout = 0.3,
        init: Initialization = "normal",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.network = wgan_gp.Discriminator(
            image_size=image_size,
            channels=channels + num_classes,
            widths=_widths(width, widths, len(resampling_strides(image_size, strides)) + full_size_stage),
            strides=strides,
            full_size_stage=full_size_stage,
            kernel_size=kernel_size,
            activation=activation,
            slope=slope,
            slopes=slopes,
            dropout=dropout,
            init=init,
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.network(with_label_planes(images, labels, self.num_classes))
        return logits
