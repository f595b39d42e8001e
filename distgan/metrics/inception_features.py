"""`fid` and `fid_clean`: features of the Inception network that papers' distances are measured with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from distgan.errors import UserError
from distgan.metrics.features import checked_images, exact_arithmetic
from distgan.metrics.inception import FEATURES, IMAGE_SIZE, InceptionV3
from distgan.metrics.known import INCEPTION_WEIGHTS
from distgan.metrics.resize import resize_as_pillow, resize_as_tensorflow


class InceptionFeatures:
    """The published FID's: the last pooled layer of Inception-v3 with the weights of 2015-12-05, 2,048 numbers.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (2017). Images
    are resized to 299x299 as TensorFlow 1 did it, grey ones repeated to RGB, and given as `(x - 128) / 128`. So does
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
        try:
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{weights}: not the weights of {self.name}: {reason:.200}; give {INCEPTION_WEIGHTS.file}"
            ) from error
        network.eval().requires_grad_(False)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `FeatureExtractor`. Raises UserError for images that are neither grey nor RGB."""
        checked_images(images, self.name)
        with exact_arithmetic(self.device):
            parts = torch.split(images, self.batch)
            return torch.cat([self.network.pooled_features(self.preprocess(part)) for part in parts])

    @torch.inference_mode()
    def logits(self, features: Tensor) -> Tensor:
        """Of the Inception Score: (N, 2048) features to (N, 1008), without the last layer's bias."""
        with exact_arithmetic(self.device):
            return self.network.logits(features)

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> the network's input, (N, 3, 299, 299)."""
        values = self.resize(images.to(self.device).float(), IMAGE_SIZE)
        normalised = values.sub(128).div(128)
        return normalised.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    resize = staticmethod(resize_as_tensorflow)


class CleanInceptionFeatures(InceptionFeatures):
    """As `InceptionFeatures`, of images that are resized with Pillow's antialiased bicubic filter and clamped.

    The measure of the package clean-fid.
    """

    name = "fid_clean"
    resize = staticmethod(resize_as_pillow)
