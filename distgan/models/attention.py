"""Self-attention over the positions of an image (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

Form = Literal["plain", "pooled"]

Attention = Annotated[
    Literal["none", "plain", "pooled"], Doc("self-attention: plain is the paper's formula, pooled its authors' code")
]

AttentionSize = Annotated[int, Ge(4), Le(128), Doc("pixels a side where attention is; the source's by default")]


class SelfAttention2d(nn.Module):
    """(N, C, H, W) to the same shape: y = γ · o + x, where o_j = Σ_i β_ji h(x_i) sums over all positions i.

    β_ji = softmax over i of f(x_i)ᵀ g(x_j); f, g (C/8 channels each) and h are 1x1 convolutions; γ is learned from
    0 on. Form "plain" is the paper's formula: h has C channels, and all three a bias. Form "pooled" is its authors'
    code: h has C/2 channels, f and h are max-pooled by 2, another 1x1 convolution leads o back to C channels, and
    nothing has a bias.

    Raises ValueError for a number of channels that 8 does not divide.
    """

    def __init__(self, channels: int, form: Form = "plain") -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(
                f"self-attention divides its channels by 8, and its stage has {channels}: set width or widths so that "
                f"this stage has a multiple of 8, or attention=none"
            )
        pooled = form == "pooled"
        values = channels // 2 if pooled else channels
        self.f = nn.Conv2d(channels, channels // 8, 1, bias=not pooled)
        self.g = nn.Conv2d(channels, channels // 8, 1, bias=not pooled)
        self.h = nn.Conv2d(channels, values, 1, bias=not pooled)
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()
        self.last = nn.Conv2d(values, channels, 1, bias=False) if pooled else nn.Identity()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        f, g, h = self.pool(self.f(x)).flatten(2), self.g(x).flatten(2), self.pool(self.h(x)).flatten(2)
        beta = (g.transpose(1, 2) @ f).softmax(2)
        # Positions before channels: the gradient of beta, which is large, is then laid out as beta, and not copied.
        attended = (beta @ h.transpose(1, 2)).transpose(1, 2)
        o: Tensor = self.last(attended.unflatten(2, x.shape[2:]))
        return self.gamma * o + x


def attention_stage(attention_at: int | None, image_size: int, sizes: Sequence[int]) -> int:
    """Index of the stage before the self-attention: the first whose output is `attention_at` pixels wide.

    `sizes` are the widths of all stages' outputs. By default 32 pixels, or half the image where that is less. Raises
    ValueError where no stage has that size.
    """
    wanted = min(32, image_size // 2) if attention_at is None else attention_at
    if wanted not in sizes:
        listed = ", ".join(str(size) for size in sorted(set(sizes)))
        raise ValueError(
            f"attention_at={wanted}: no stage of the network has that size; set attention_at to one of {listed}"
        )
    return list(sizes).index(wanted)
