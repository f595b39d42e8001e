"""`fid` and `fid_clean`: features of the Inception network that papers report distances with."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from distgan.evaluation.extractors.extractor import checked_images, exact_arithmetic, load_weights
from distgan.evaluation.extractors.inception import FEATURES, IMAGE_SIZE, InceptionV3


def resize_as_tensorflow(images: Tensor, size: int) -> Tensor:
    """Bilinear as TensorFlow 1's `resize_bilinear`: (N, C, H, W) floats to (N, C, size, size).

    Pixel i of the result is read at i · H / size, not at the centers of pixels, and without a filter, so that
    large images are sampled rather than averaged. The published FID is computed so.
    """
    rows, columns = (_interpolation(length, size).to(images) for length in images.shape[2:])
    return rows @ images @ columns.T


def resize_as_pillow(images: Tensor, size: int) -> Tensor:
    """Bicubic with Pillow's filter, which averages what it shrinks: (N, C, H, W) of 0 to 255 to (N, C, size, size).

    Values are not rounded, but clamped to 0 to 255, as the clean-fid package does since 2022.
    Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation" (2022).
    """
    resized = F.interpolate(images, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255)


def _interpolation(length: int, size: int) -> Tensor:
    """(size, length): each row the weights of the two pixels that it lies between."""
    places = torch.arange(size, dtype=torch.float32) * (length / size)
    before = places.floor().long()
    after = (before + 1).clamp(max=length - 1)
    part = places - before
    weights = torch.zeros(size, length)
    rows = torch.arange(size)
    weights[rows, before] = 1 - part
    weights[rows, after] += part
    return weights


class InceptionFeatures:
    """The published FID's: the last pooled layer of Inception-v3 with the weights of 2015-12-05, 2,048 numbers.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (2017). Images
    are resized to 299x299 as TensorFlow 1 does, gray ones repeated to RGB, and given as `(x - 128) / 128`. So does
    torch-fidelity; the command of pytorch-fid resizes between the centers of pixels (`F.interpolate`), and its
    distances of small images are about 2 % larger. The arithmetic is float32 whatever the caller's autocast and TF32
    settings.
    """

    name = "fid"
    dimension = FEATURES
    batch = 32

    def __init__(self, device: torch.device | str, weights: Path) -> None:
        """`weights`: a state dict with the names of `InceptionV3`. Raises UserError for another."""
        self.device = torch.device(device)
        network = InceptionV3()
        load_weights(network, weights, self.name)
        network.eval().requires_grad_(False)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `FeatureExtractor`. Raises UserError for images that are neither gray nor RGB."""
        checked_images(images, self.name)
        with exact_arithmetic(self.device):
            parts = torch.split(images, self.batch)
            return torch.cat([self.network.pooled_features(self.preprocess(part)) for part in parts])

    @torch.inference_mode()
    def logits(self, features: Tensor) -> Tensor:
        """The Inception Score's logits: (N, 2048) features to (N, 1008), without the last layer's bias."""
        with exact_arithmetic(self.device):
            return self.network.logits(features)

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> the network's input, (N, 3, 299, 299)."""
        values = self.resize(images.to(self.device).float(), IMAGE_SIZE)
        normalized = values.sub(128).div(128)
        return normalized.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    resize = staticmethod(resize_as_tensorflow)


class CleanInceptionFeatures(InceptionFeatures):
    """As `InceptionFeatures`, of images that are resized with Pillow's antialiased bicubic filter and clamped.

    As the package clean-fid computes it.
    """

    name = "fid_clean"
    resize = staticmethod(resize_as_pillow)
