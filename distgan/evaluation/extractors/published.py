"""Sizes, revisions and weights of the extractors, without loading one: cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights that defines an extractor, and that users download themselves.

    Attributes:
        file: its published name.
        sha256: of its bytes, in hexadecimal.
        page: where to download it.
    """

    file: str
    sha256: str
    page: str


@dataclass(frozen=True)
class KnownExtractor:
    """Size of an extractor's features, and the weights that it needs.

    Attributes:
        dimension: length of a feature vector.
        weights: the file that it needs; None if its weights are installed.
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
    """The length of the extractor's feature vectors; None for a custom one."""
    known = KNOWN.get(extractor)
    return known.dimension if known is not None else None


def feature_revision(extractor: str) -> int:
    """The revision of the extractor's features; 1 for a custom one."""
    known = KNOWN.get(extractor)
    return known.revision if known is not None else 1


def published_weights(extractor: str) -> PublishedWeights | None:
    """The file that the extractor needs; None if its weights are installed."""
    known = KNOWN.get(extractor)
    return known.weights if known is not None else None
