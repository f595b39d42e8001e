"""What is known of the extractors without loading one: cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights that an extractor is defined by, and that its users fetch themselves.

    Attributes:
        file: the name that it is known by.
        sha256: of its bytes, in hexadecimal.
        page: where it can be had.
    """

    file: str
    sha256: str
    page: str


@dataclass(frozen=True)
class KnownExtractor:
    """What an extractor makes of an image, and what it needs.

    Attributes:
        dimension: numbers in one image's feature vector.
        weights: the file that it needs where it brings none.
        revision: counts how often its features have changed; statistics of another revision are not comparable.
    """

    dimension: int
    weights: PublishedWeights | None = None
    revision: int = 1


INCEPTION_WEIGHTS = PublishedWeights(
    file="pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    page="https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
)

# By the registry's names.
KNOWN: Mapping[str, KnownExtractor] = {
    "fd_lite0": KnownExtractor(320),
    "fid": KnownExtractor(2048, INCEPTION_WEIGHTS),
    "fid_clean": KnownExtractor(2048, INCEPTION_WEIGHTS, revision=2),  # 2: clamped after the resize
}


def feature_count(extractor: str) -> int | None:
    """How many numbers the extractor makes of an image; None for a user's own, of which only itself knows."""
    known = KNOWN.get(extractor)
    return known.dimension if known is not None else None


def feature_revision(extractor: str) -> int:
    """The revision of the extractor's features; 1 for a user's own."""
    known = KNOWN.get(extractor)
    return known.revision if known is not None else 1


def published_weights(extractor: str) -> PublishedWeights | None:
    """The file that the extractor needs; None where it brings its own weights."""
    known = KNOWN.get(extractor)
    return known.weights if known is not None else None
