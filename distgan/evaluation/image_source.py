"""Images to evaluate, in fixed chunks so that results do not depend on the workers, and the progress over them."""

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
        """Images number · CHUNK and on, uint8 (CHUNK, C, H, W), fewer in the last chunk; the same each time.

        Raises UserError for images that are not finite numbers, or cannot be read.
        """
        ...


Stage = Literal["real images", "images", "training images"]

# Is told that so many more images of a stage have been measured.
OnProgress = Callable[[Stage, int], None]


def nobody(stage: Stage, images: int) -> None:
    """Is told for nothing."""


class CountedFeatures:
    """An extractor that tells how many images it was given. See `FeatureExtractor`.

    stage: what images it is given.
    """

    def __init__(self, extractor: FeatureExtractor, told: OnProgress) -> None:
        self._extractor, self._told = extractor, told
        self.name, self.dimension = extractor.name, extractor.dimension
        self.stage: Stage = "real images"
        if hasattr(extractor, "logits"):
            self.logits = extractor.logits

    def __call__(self, images: Tensor) -> Tensor:
        features = self._extractor(images)
        self._told(self.stage, len(images))
        return features
