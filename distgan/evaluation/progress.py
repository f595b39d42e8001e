"""How far a measurement is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from distgan.metrics.features import FeatureExtractor

Stage = Literal["real images", "images", "training images"]
# Is told that so many more images of a stage have been measured.
Told = Callable[[Stage, int], None]


def nobody(stage: Stage, images: int) -> None:
    """Is told for nothing."""


class CountedFeatures:
    """An extractor that tells how many images it was given. See `FeatureExtractor`.

    stage: what images it is given.
    """

    def __init__(self, extractor: FeatureExtractor, told: Told) -> None:
        self._extractor, self._told = extractor, told
        self.name, self.dimension = extractor.name, extractor.dimension
        self.stage: Stage = "real images"
        if hasattr(extractor, "logits"):
            self.logits = extractor.logits

    def __call__(self, images: Tensor) -> Tensor:
        features = self._extractor(images)
        self._told(self.stage, len(images))
        return features
