"""SNGAN (Miyato et al. 2018), with the labels of Miyato & Koyama 2018; SAGAN adds self-attention to it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from distgan.models.attention import Attention, AttentionSize, SelfAttention2d, attention_stage
from distgan.models.layers import (
    ConditionalBatchNorm2d,
    Epsilon,
    Initialization,
    Momentum,
    SpectralNorm,
    Width,
    Widths,
    normalize_spectrally,
)
from distgan.models.residual import (
    SOURCES_GAIN,
    DiscriminatorBlock,
    Form,
    GeneratorBlock,
    ResidualGain,
    doubles_throughout,
    initialize_residual,
    num_upsamplings,
    residual_widths,
)


class Generator(nn.Module):
    """Latents (N, latent_dim), with num_classes also labels (N,), to images (N, channels, image_size, image_size).

    A dense layer to 4x4, a residual block a doubling, batch normalization, ReLU, a 3x3 convolution and tanh: values in
    [-1, 1]. The blocks' batch normalization is conditional where there are labels, the last one never is. `width` is
    by default 256 channels in every stage at 32 pixels (Miyato et al., table 4), and 64 next to the image above that,
    doubling to 1,024 at 4x4: at 64 pixels with every stage, at 128 but for the last (their table 6). With
    `form: sagan` the network for 64 pixels is that for 128 with a stage less. BatchNorm's eps is Chainer's, in which
    the source is written, and so are the first weights (`residual.initialize_residual`). SNGAN normalizes no weight of
    its generator spectrally, SAGAN all.

    Raises ValueError for an image size that is not 32, 64 or 128.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        latent_dim: int,
        num_classes: int | None = None,
        width: Width | None = None,
        widths: Widths = None,
        norm_momentum: Momentum = 0.1,
        norm_eps: Epsilon = 2e-5,
        attention: Attention = "none",
        attention_at: AttentionSize | None = None,
        spectral_norm: SpectralNorm = False,
        form: Form = "sngan",
        init: Initialization = "glorot",
        residual_gain: ResidualGain = SOURCES_GAIN,
    ) -> None:
        super().__init__()
        count = num_upsamplings(image_size)
        default = 256 if image_size == 32 else 64
        hidden = residual_widths(image_size, width or default, widths, count + 1, form)[::-1]

        def norm(outputs: int) -> nn.Module:
            if num_classes is None:
                return nn.BatchNorm2d(outputs, eps=norm_eps, momentum=norm_momentum)
            return ConditionalBatchNorm2d(outputs, num_classes, eps=norm_eps, momentum=norm_momentum)

        self.dense = nn.Sequential(nn.Linear(latent_dim, hidden[0] * 16), nn.Unflatten(1, (hidden[0], 4, 4)))
        self.blocks = nn.ModuleList(GeneratorBlock(inputs, outputs, norm) for inputs, outputs in pairwise(hidden))
        self.attended, self.attention = -1, None
        if attention != "none":
            self.attended = attention_stage(attention_at, image_size, [8 * 2**stage for stage in range(count)])
            self.attention = SelfAttention2d(hidden[self.attended + 1], attention)
        self.last = nn.Sequential(
            nn.BatchNorm2d(hidden[-1], eps=norm_eps, momentum=norm_momentum),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden[-1], channels, 3, padding=1),
            nn.Tanh(),
        )
        initialize_residual(self, init, residual_gain)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        given = () if labels is None else (labels,)
        x: Tensor = self.dense(latents)
        for stage, block in enumerate(self.blocks):
            x = block(x, *given)
            if self.attention is not None and stage == self.attended:
                x = self.attention(x)
        images: Tensor = self.last(x)
        return images


class Discriminator(nn.Module):
    """Images (N, channels, image_size, image_size) in [-1, 1], with num_classes also labels (N,), to logits (N,).

    Residual blocks, ReLU, a sum φ over all places, and a dense layer; labels add the projection e_labelᵀ φ (Miyato &
    Koyama 2018). At 32 pixels four blocks of 128 channels, two of which halve (Miyato et al., table 4). Above that the
    blocks double from 64 channels on: at 64 pixels five that halve down to 2x2, at 128 five that halve down to 4x4 and
    one that keeps size and channels (their table 6). Between the convolutions of a block but the first are as many
    channels as come in. With `form: sagan` as many as go out, and the network for 64 pixels is that for 128 with a
    stage less. The logits are unbounded. All weights are spectrally normalized. With `pooling: mean` and no spectral
    normalization it is that of WGAN-GP on CIFAR-10 (Gulrajani et al. 2017).

    Raises ValueError for an image size that is not 32, 64 or 128.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        num_classes: int | None = None,
        width: Width | None = None,
        widths: Widths = None,
        attention: Attention = "none",
        attention_at: AttentionSize | None = None,
        pooling: Annotated[Literal["sum", "mean"], Doc("over all places, before the last layer")] = "sum",
        spectral_norm: SpectralNorm = True,
        form: Form = "sngan",
        init: Initialization = "glorot",
        residual_gain: ResidualGain = SOURCES_GAIN,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        count = 4 if image_size == 32 else num_upsamplings(image_size) + 1
        halvings = 2 if image_size == 32 else count if doubles_throughout(image_size, form) else count - 1
        default = 128 if image_size == 32 else 64
        hidden = residual_widths(image_size, width or default, widths, count, form)
        self.blocks = nn.ModuleList()
        for stage, (inputs, outputs) in enumerate(zip([channels, *hidden], hidden, strict=False)):
            first = stage == 0
            middle = inputs if form == "sngan" and not first else outputs
            self.blocks.append(DiscriminatorBlock(inputs, middle, outputs, downsample=stage < halvings, first=first))
        self.attended, self.attention = -1, None
        if attention != "none":
            sizes = [image_size // 2 ** min(stage + 1, halvings) for stage in range(count)]
            self.attended = attention_stage(attention_at, image_size, sizes)
            self.attention = SelfAttention2d(hidden[self.attended], attention)
        self.dense = nn.Linear(hidden[-1], 1)
        self.projection = None if num_classes is None else nn.Embedding(num_classes, hidden[-1])
        initialize_residual(self, init, residual_gain)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for stage, block in enumerate(self.blocks):
            x = block(x)
            if self.attention is not None and stage == self.attended:
                x = self.attention(x)
        features = F.relu(x).sum((2, 3)) if self.pooling == "sum" else F.relu(x).mean((2, 3))
        logits: Tensor = self.dense(features).flatten()
        if self.projection is None:
            return logits
        projected: Tensor = (self.projection(labels) * features).sum(1)
        return logits + projected
