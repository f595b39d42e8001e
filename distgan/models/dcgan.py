"""DCGAN (Radford et al. 2015) in the form of Foster, Generative Deep Learning, 2nd ed., ch. 4."""

from __future__ import annotations

from torch import Tensor, nn

from distgan.models.layers import (
    Activation,
    Dropout,
    Epsilon,
    FullSizeStage,
    Initialization,
    KernelSize,
    LastBias,
    LatentToImage,
    Momentum,
    Slope,
    Strides,
    Upsampling,
    Width,
    Widths,
    activation_layer,
    initialize,
    resampling_strides,
    same_convolution,
    same_transposed_convolution,
    stage_widths,
)


class Generator(nn.Module):
    """Latents (N, latent_dim) to images (N, channels, image_size, image_size) in [-1, 1].

    A transposed convolution from 1x1 to 4x4, then one stage a stride, each but the last with batch
    normalization and the activation; tanh at the end. `upsampling="nearest"` replaces the transposed
    convolutions after the first by nearest up-sampling and a convolution, with the same parameter count.
    `width` is the channels of the last hidden stage; they double towards the latent. With `last_bias` it is the
    generator of WGAN-GP (Foster, ch. 4).
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        latent_dim: int,
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
        last_bias: LastBias = False,
        init: Initialization = "normal",
    ) -> None:
        super().__init__()
        stage_strides = [*resampling_strides(image_size, strides), *([1] if full_size_stage else [])]
        hidden = stage_widths(width, widths, len(stage_strides))[::-1]

        def normalized(outputs: int) -> list[nn.Module]:
            return [
                nn.BatchNorm2d(outputs, eps=norm_eps, momentum=norm_momentum),
                activation_layer(activation, slope),
            ]

        layers: list[nn.Module] = [
            LatentToImage(),
            nn.ConvTranspose2d(latent_dim, hidden[0], 4, bias=False),
            *normalized(hidden[0]),
        ]
        for stage, stride in enumerate(stage_strides):
            last = stage == len(stage_strides) - 1
            inputs, outputs = hidden[stage], channels if last else hidden[stage + 1]
            bias = last and last_bias
            if upsampling == "transposed":
                layers.append(same_transposed_convolution(inputs, outputs, kernel_size, stride, bias))
            else:
                layers.append(nn.Upsample(scale_factor=stride, mode="nearest"))
                layers += same_convolution(inputs, outputs, kernel_size, 1, bias)
            layers += [nn.Tanh()] if last else normalized(outputs)
        self.layers = nn.Sequential(*layers)
        initialize(self, init)

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.layers(latents)
        return images


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) in [-1, 1] to unbounded logits (N,).

    One convolution a stride down to 4x4, batch normalization after all but the first, activation and
    dropout after each; then a 4x4 convolution to one logit. No convolution has a bias. `width` is the
    channels of the first stage; they double towards the logit. There is no sigmoid, so with the objective `wgan`
    it is the network of WGAN (Arjovsky et al. 2017), batch normalization kept.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        width: Width = 64,
        widths: Widths = None,
        strides: Strides = None,
        full_size_stage: FullSizeStage = False,
        kernel_size: KernelSize = 4,
        activation: Activation = "leaky_relu",
        slope: Slope = 0.2,
        dropout: Dropout = 0.3,
        norm_momentum: Momentum = 0.1,
        norm_eps: Epsilon = 1e-3,
        init: Initialization = "normal",
    ) -> None:
        super().__init__()
        stage_strides = [*([1] if full_size_stage else []), *resampling_strides(image_size, strides)]
        hidden = stage_widths(width, widths, len(stage_strides))
        layers: list[nn.Module] = []
        inputs = channels
        for stage, (stride, outputs) in enumerate(zip(stage_strides, hidden, strict=True)):
            layers += same_convolution(inputs, outputs, kernel_size, stride, bias=False)
            if stage > 0:
                layers.append(nn.BatchNorm2d(outputs, eps=norm_eps, momentum=norm_momentum))
            layers += [activation_layer(activation, slope), nn.Dropout(dropout)]
            inputs = outputs
        layers.append(nn.Conv2d(inputs, 1, 4, bias=False))
        self.layers = nn.Sequential(*layers)
        initialize(self, init)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits.flatten()
