"""Stacked Fashion-MNIST: three gray pictures as the red, green and blue of one, so 1,000 modes that can be counted.

After Stacked MNIST (Metz et al. 2017, Unrolled Generative Adversarial Networks; Lin et al. 2018, PacGAN): the classes
of the three channels are the digits of a mode's number, and each mode is equally likely.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distgan.config.load import load_config
from distgan.data.index import Index
from distgan.data.sources.base import Source
from distgan.data.sources.idx import IdxSource
from distgan.inference.sampling import draw_samples
from distgan.storage.storage import Storage
from distgan.training.checkpoints import Checkpoint

CLASSES, MODES = 10, 1000


class StackedSource(Source):
    """`count` color images, each channel an image drawn from the IDX files at `path`.

    The classes of the channels are drawn independently and equally likely where the files have as many images of each.
    """

    def __init__(self, path: str, count: int = 60_000, seed: int = 0) -> None:
        self._images = IdxSource(path)
        self._drawn = np.random.default_rng(seed).integers(len(self._images), size=(count, 3))

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return np.stack([self._images[int(drawn)][0] for drawn in self._drawn[number]], axis=-1), -1


@dataclass(frozen=True)
class Coverage:
    """Modes that images were taken for.

    Attributes:
        modes: how many of the 1,000 at least one image has.
        divergence: of the modes' shares from equal ones, KL(shares ‖ equal), in nats.
    """

    modes: int
    divergence: float


class ModeCounter:
    """Counts modes by a classifier of gray images, trained on a data set of them (`examples/label_agreement.py`)."""

    def __init__(self, gray: str, image_size: int = 32) -> None:
        """`gray` is the URL of the packed data set of the single pictures, with their 10 classes."""
        examples = _label_agreement()
        fixed = [f"data.url={gray}", f"image_size={image_size}", f"num_classes={CLASSES}"]
        config = load_config("cgan-fashion", fixed)
        images, labels = examples.real_images(Index.load(Storage.open(gray)), config, seed=0)
        self._classifier: nn.Module = examples.trained_classifier(images, labels, config, seed=0)
        self._predictions = examples.predictions

    def of_images(self, images: Tensor) -> Coverage:
        """`images` is uint8 (N, 3, H, W)."""
        digits = [self._predictions(self._classifier, images[:, [channel]]) for channel in range(3)]
        counts = torch.bincount(digits[0] * 100 + digits[1] * 10 + digits[2], minlength=MODES).double()
        shares = counts[counts > 0] / counts.sum()
        return Coverage(len(shares), float((shares * (shares * MODES).log()).sum()))

    def of_checkpoint(self, checkpoint: Checkpoint, count: int) -> Coverage:
        """`count` samples of a checkpoint's averaged generator."""
        return self.of_images(torch.cat(list(draw_samples(checkpoint, count, seed=0).batches)))


def _label_agreement() -> ModuleType:
    """The example as a module; the folder of examples is no package."""
    file = Path(__file__).parents[1] / "examples" / "label_agreement.py"
    spec = importlib.util.spec_from_file_location("label_agreement", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
