"""A small conditional pair of networks in a module outside the package, which configurations name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# As overrides: a section given whole takes the place of a preset's.
GENERATOR = "generator={network: conditional:Generator}"
NETWORKS = [GENERATOR, "discriminator={network: conditional:Critic}"]


class Generator(nn.Module):
    """Labels one-hot beside the latents; batch normalization."""

    def __init__(self, *, image_size: int, channels: int, latent_dim: int, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + num_classes, width * image_size**2 // 4),
            nn.Unflatten(1, (width, image_size // 2, image_size // 2)),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, channels, 2, stride=2),
            nn.Tanh(),
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.layers(torch.cat([latents, F.one_hot(labels, self.num_classes).to(latents)], 1))
        return images


class Critic(nn.Module):
    """Labels as planes beside the image, and dropout; batch normalization on request."""

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        num_classes: int,
        width: int = 4,
        dropout: float = 0.3,
        normalized: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Conv2d(channels + num_classes, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width) if normalized else nn.Identity(),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(width * image_size**2 // 4, 1),
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        planes = F.one_hot(labels, self.num_classes).to(images)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        logits: Tensor = self.layers(torch.cat([images, planes], 1))
        return logits.flatten()
