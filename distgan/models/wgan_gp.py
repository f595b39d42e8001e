"""The critic of WGAN-GP (Gulrajani et al. 2017) in the form of Foster, Generative Deep Learning, 2nd ed., ch. 4."""

from __future__ import annotations

from torch import Tensor, nn

from distgan.models.layers import (
    Activation,
    Dropout,
    FullSizeStage,
    Initialization,
    KernelSize,
    Slope,
    Slopes,
    Strides,
    Width,
    Widths,
    activation_layer,
    initialize,
    resampling_strides,
    same_convolution,
    stage_slopes,
    stage_widths,
)


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) in [-1, 1] to unbounded logits (N,).

    One convolution with bias a stride down to 4x4, activation after each, dropout after all but the first;
    then a 4x4 convolution to one logit. Nothing in it mixes the images of a batch, as the gradient penalty
    demands. `width` is the channels of the first stage; they double towards the logit. `slopes` sets LeakyReLU's
    slope stage by stage: the source's code has [0.2, 0.3, 0.2, 0.2].
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
        slopes: Slopes = None,
        dropout: Dropout = 0.3,
        init: Initialization = "normal",
    ) -> None:
        super().__init__()
        stage_strides = [*([1] if full_size_stage else []), *resampling_strides(image_size, strides)]
        hidden = stage_widths(width, widths, len(stage_strides))
        stage_slope = stage_slopes(slope, slopes, len(stage_strides))
        layers: list[nn.Module] = []
        inputs = channels
        for stage, (stride, outputs) in enumerate(zip(stage_strides, hidden, strict=True)):
            layers += same_convolution(inputs, outputs, kernel_size, stride, bias=True)
            layers.append(activation_layer(activation, stage_slope[stage]))
            if stage > 0:
                layers.append(nn.Dropout(dropout))
            inputs = outputs
        layers.append(nn.Conv2d(inputs, 1, 4))
        self.layers = nn.Sequential(*layers)
        initialize(self, init)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits.flatten()
