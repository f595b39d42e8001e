"""How labels enter a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels (N,) in [0, num_classes) as rows (N, num_classes) of zeros with a one in the label's place."""
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).to(dtype)


def with_label_planes(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Images (N, C, H, W) with a plane a class as further channels: ones in the label's plane, zeros in the others."""
    planes = one_hot(labels, num_classes, images.dtype)[:, :, None, None]
    return torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], 1)


class ConditionalBatchNorm2d(nn.Module):
    """Batch normalisation of (N, channels, H, W) with a scale and shift of each class's own.

    y = scale[label] · (x − μ) / √(σ² + eps) + shift[label], with μ, σ² over the batch, whatever its labels (de Vries
    et al. 2017, as Miyato & Koyama 2018 use it). Scales begin at 1, shifts at 0.
    """

    def __init__(self, channels: int, num_classes: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=False)
        self.scale = nn.Parameter(torch.ones(num_classes, channels))
        self.shift = nn.Parameter(torch.zeros(num_classes, channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        # Not `self.scale[labels]`: the gradient of indexing is added up in no fixed order.
        scale, shift = (F.embedding(labels, each)[:, :, None, None] for each in (self.scale, self.shift))
        normalised: Tensor = self.norm(x)
        return scale * normalised + shift
