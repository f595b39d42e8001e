"""SAGAN (Zhang et al. 2018) in the paper's residual form: SNGAN's networks with self-attention."""

from __future__ import annotations

from distgan.models import sngan
from distgan.models.attention import Attention, AttentionSize
from distgan.models.layers import Epsilon, Initialization, Momentum, SpectralNorm, Width, Widths
from distgan.models.residual import Form, ResidualGain


class Generator(sngan.Generator):
    """`sngan.Generator` with its authors' self-attention at 32 pixels (16 for images of 32), normalized spectrally.

    The paper's formula instead of the authors' code: `attention: plain`.
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
        attention: Attention = "pooled",
        attention_at: AttentionSize | None = None,
        spectral_norm: SpectralNorm = True,
        form: Form = "sagan",
        init: Initialization = "glorot",
        residual_gain: ResidualGain = 1.0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            latent_dim=latent_dim,
            num_classes=num_classes,
            width=width,
            widths=widths,
            norm_momentum=norm_momentum,
            norm_eps=norm_eps,
            attention=attention,
            attention_at=attention_at,
            spectral_norm=spectral_norm,
            form=form,
            init=init,
            residual_gain=residual_gain,
        )


class Discriminator(sngan.Discriminator):
    """`sngan.Discriminator` with its authors' self-attention at 32 pixels (16 for images of 32).

    The paper's formula instead of the authors' code: `attention: plain`.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        num_classes: int | None = None,
        width: Width | None = None,
        widths: Widths = None,
        attention: Attention = "pooled",
        attention_at: AttentionSize | None = None,
        spectral_norm: SpectralNorm = True,
        form: Form = "sagan",
        init: Initialization = "glorot",
        residual_gain: ResidualGain = 1.0,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            width=width,
            widths=widths,
            attention=attention,
            attention_at=attention_at,
            spectral_norm=spectral_norm,
            form=form,
            init=init,
            residual_gain=residual_gain,
        )
