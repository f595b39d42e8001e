"""Images to evaluate, in chunks of a fixed size so that results do not depend on the number of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor

from distgan.evaluation.extractors.extractor import FeatureExtractor

# Images a chunk.
CHUNK = 64


class ImageSource(Protocol):
    """Images by number, from a generator or a folder.

    count: how many there are.
    """

    count: int

    def chunk(self, number: int) -> Tensor:
        """Images from number · CHUNK on, uint8 (CHUNK, C, H, W), fewer in the last chunk; the same each time.

        Raises UserError for images that are not finite numbers, or cannot be read.
        """
        ...


Stage = Literal["real images", "images", "training images"]

# Called with a stage and the number of images that it has advanced by.
OnProgress = Callable[[Stage, int], None]


class CountingExtractor:
    """An extractor that reports its progress. See `FeatureExtractor`.

    stage: the kind of images that it is given now.
    """

    def __init__(self, extractor: FeatureExtractor, on_progress: OnProgress | None) -> None:
        self._extractor, self._on_progress = extractor, on_progress
        self.name, self.dimension = extractor.name, extractor.dimension
        self.stage: Stage = "real images"
        if hasattr(extractor, "logits"):
            self.logits = extractor.logits

    def __call__(self, images: Tensor) -> Tensor:
        features = self._extractor(images)
        if self._on_progress is not None:
            self._on_progress(self.stage, len(images))
        return features
