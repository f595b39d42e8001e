"""The vision transformer of DINOv2, from its formulas.

Dosovitskiy et al., "An Image Is Worth 16x16 Words" (2021); Touvron et al., "Going Deeper with Image Transformers"
(2021) for LayerScale; Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2023). The
parameters have the names that they have in the published weights, so that their state dict loads strictly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 14

# Patches along a side of the images that the published position embeddings are of: 518 pixels.
TRAINED_GRID = 37

# Added to the new grid's side where position embeddings are interpolated, as in the published code. It scales the
# places that are read by 16 / 16.1 for 224 pixels; features of the published weights are computed so.
GRID_OFFSET = 0.1

LAYER_NORM_EPS = 1e-6


class VisionTransformer(nn.Module):
    """Images (N, 3, H, W), normalized, H and W multiples of 14, to the class token's features (N, width)."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_GRID**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # in the published weights; only their training used it
        self.patch_embed = PatchEmbedding(width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = tokens + self.positions(images.shape[2] // PATCH, images.shape[3] // PATCH)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.norm(tokens[:, 0])
        return features

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position embeddings of the class token and of a grid of patches, (1, 1 + rows · columns, width).

        Those of another grid than the trained one are interpolated: bicubic, without a filter.
        """
        if (rows, columns) == (TRAINED_GRID, TRAINED_GRID):
            return self.pos_embed
        width = self.pos_embed.shape[2]
        grid = self.pos_embed[:, 1:].reshape(1, TRAINED_GRID, TRAINED_GRID, width).permute(0, 3, 1, 2)
        scale = ((rows + GRID_OFFSET) / TRAINED_GRID, (columns + GRID_OFFSET) / TRAINED_GRID)
        resized = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        assert resized.shape[2:] == (rows, columns), f"position embeddings of {tuple(resized.shape[2:])} patches"
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class PatchEmbedding(nn.Module):
    """A linear map of each patch of 14x14 pixels, (N, 3, H, W) to (N, H / 14 · W / 14, width), row by row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """`x + γ₁ · attention(norm(x))`, then `x + γ₂ · mlp(norm(x))`, on tokens (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        summed: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return summed


class Attention(nn.Module):
    """Self-attention, `softmax(q kᵀ / √d) v` in each head of d = width / heads numbers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"a width of {width} in {heads} heads"
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        qkv = self.qkv(tokens).reshape(count, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, length, width))
        return projected


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, four times as wide as the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        projected: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return projected


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma
