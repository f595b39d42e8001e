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
    """How many numbers it makes of an image, and the weights it needs where it brings none."""

    dimension: int
    weights: PublishedWeights | None = None


INCEPTION_WEIGHTS = PublishedWeights(
    file="pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    page="https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
)

# By the registry's names.
KNOWN: Mapping[str, KnownExtractor] = {
    "fd_lite0": KnownExtractor(320),
    "fid": KnownExtractor(2048, INCEPTION_WEIGHTS),
    "fid_clean": KnownExtractor(2048, INCEPTION_WEIGHTS),
}


def feature_count(extractor: str) -> int | None:
    """How many numbers the extractor makes of an image; None for a user's own, of which only itself knows."""
    known = KNOWN.get(extractor)
    return known.dimension if known is not None else None


def published_weights(extractor: str) -> PublishedWeights | None:
    """The file that the extractor needs; None where it brings its own weights."""
    known = KNOWN.get(extractor)
    return known.weights if known is not None else None
