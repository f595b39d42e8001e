"""`fd_dinov2` and smaller ones: class tokens of DINOv2, whose weights the user gives."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from distgan.evaluation.extractors.extractor import checked_images, exact_arithmetic, load_weights
from distgan.evaluation.extractors.vision_transformer import VisionTransformer

# Of ImageNet's red, green and blue, from 0 to 1.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resize_bytes(images: Tensor, size: int) -> Tensor:
    """Bicubic as Pillow's of 8-bit images: uint8 (N, C, H, W) to whole floats of 0 to 255, (N, C, size, size).

    Rows are resized first, and rounded (halves up) and clamped before columns are. Of noise at most 1 % of the values
    differ from Pillow's, by a level or two: those at a half.
    """
    resized = images.float()
    for shape in ((images.shape[2], size), (size, size)):
        resized = F.interpolate(resized, size=shape, mode="bicubic", align_corners=False, antialias=True)
        resized = resized.add(0.5).floor().clamp(0, 255)
    return resized


class Dinov2Features:
    """The class token of DINOv2's ViT-L/14, after its last normalization: 1,024 numbers.

    Their Fréchet distance is the FD-DINOv2 of Stein et al., "Exposing Flaws of Generative Model Evaluation Metrics and
    Their Unfair Treatment of Diffusion Models" (2023). Images are resized to 224x224 as Pillow does (bicubic,
    antialiased, 8 bits), gray ones repeated to RGB, and normalized by ImageNet's mean and deviation. The
    arithmetic is float32 whatever the caller's autocast and TF32 settings.
    """

    name = "fd_dinov2"
    dimension = 1024
    depth: ClassVar[int] = 24
    heads: ClassVar[int] = 16
    image_size = 224
    batch = 32

    def __init__(self, device: torch.device | str, weights: Path) -> None:
        """`weights`: a state dict with the names of `VisionTransformer`. Raises UserError for another."""
        self.device = torch.device(device)
        network = VisionTransformer(self.dimension, self.depth, self.heads)
        load_weights(network, weights, self.name)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `FeatureExtractor`. Raises UserError for images that are neither gray nor RGB."""
        checked_images(images, self.name)
        with exact_arithmetic(self.device):
            return torch.cat([self.network(self.preprocess(part)) for part in torch.split(images, self.batch)])

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> the network's input, (N, 3, 224, 224)."""
        resized = resize_bytes(images.to(self.device), self.image_size).div(255)
        mean, deviation = (resized.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        return (resized - mean) / deviation


class Dinov2FeaturesB14(Dinov2Features):
    """As `Dinov2Features`, of ViT-B/14: 768 numbers."""

    name, dimension, depth, heads = "fd_dinov2_b14", 768, 12, 12


class Dinov2FeaturesS14(Dinov2Features):
    """As `Dinov2Features`, of ViT-S/14: 384 numbers."""

    name, dimension, depth, heads = "fd_dinov2_s14", 384, 12, 6
