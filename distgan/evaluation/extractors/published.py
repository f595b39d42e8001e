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
        variable: the environment variable that may name its path or URL.
    """

    file: str
    sha256: str
    page: str
    variable: str


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
    variable="DISTGAN_FID_WEIGHTS",
)


def _dinov2(size: str, sha256: str) -> PublishedWeights:
    return PublishedWeights(
        file=f"dinov2_{size}_pretrain.pth",
        sha256=sha256,
        page="https://github.com/facebookresearch/dinov2#pretrained-models",
        variable="DISTGAN_DINOV2_WEIGHTS",
    )


DINOV2_L14 = _dinov2("vitl14", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428")
DINOV2_B14 = _dinov2("vitb14", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73")
DINOV2_S14 = _dinov2("vits14", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9")

# By the registry's names.
KNOWN: Mapping[str, KnownExtractor] = {
    "fd_lite0": KnownExtractor(320),
    "fid": KnownExtractor(2048, INCEPTION_WEIGHTS),
    "fid_clean": KnownExtractor(2048, INCEPTION_WEIGHTS, revision=2),  # 2: clamped after the resize
    "fd_dinov2": KnownExtractor(1024, DINOV2_L14),
    "fd_dinov2_b14": KnownExtractor(768, DINOV2_B14),
    "fd_dinov2_s14": KnownExtractor(384, DINOV2_S14),
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
