"""A real side that is a file of statistics, of this package or of another tool, in place of images."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from distgan.config.schema import EvaluationConfig
from distgan.data.retry import Retry
from distgan.data.storage import NotFoundError, Storage
from distgan.errors import UserError
from distgan.metrics.features import FeatureExtractor
from distgan.metrics.known import feature_count, feature_revision
from distgan.metrics.statistics_file import MOST_BYTES, RealStatistics, floor_images
from distgan.world import World


class GivenStatistics:
    """The statistics in the file at `source`, which rank 0 reads. See `RealSide`.

    They have a floor where the file has one for as many images as are measured, `samples`.
    """

    def __init__(self, source: str, world: World, extractor: FeatureExtractor, image_size: int, samples: int) -> None:
        """Raises UserError, on every rank, where they cannot be read or are not of this extractor and size."""
        self._statistics = _read_by_rank_0(source, world)
        check_statistics(self._statistics, source, extractor.name, extractor.dimension, image_size)
        self.count, self.is_whole = self._statistics.statistics.count, False
        if self._statistics.floor_images != floor_images(samples, self.count):
            self._statistics = replace(self._statistics, floor=None, floor_images=None)

    def statistics(self) -> RealStatistics:
        return self._statistics

    def features(self, count: int) -> Tensor:
        raise AssertionError("the configuration refuses measures that need features beside a file of statistics")


def read_statistics(source: str) -> RealStatistics:
    """The statistics in the file at a path or URL. Raises UserError where there is none."""
    folder, _, name = Storage.open(source).url.rpartition("/")
    try:
        return RealStatistics.from_bytes(Storage.open(folder or "/").read_bytes(name, most=MOST_BYTES), source)
    except NotFoundError:
        raise UserError(f"{source}: no such file of statistics; `distgan data stats --out` writes one") from None


def check_given_statistics(evaluation: EvaluationConfig, source: str, image_size: int) -> RealStatistics:
    """The statistics in a file, for what a configuration measures; checked as far as it goes without the extractor.

    Raises UserError where there is none, and for those of another extractor or image size.
    """
    given, extractor = read_statistics(source), evaluation.extractor
    known = feature_count(extractor)
    check_statistics(given, source, None if known is None else extractor, known, image_size)
    return given


def check_statistics(
    given: RealStatistics, source: str, extractor: str | None, dimension: int | None, image_size: int
) -> None:
    """Raises UserError for statistics of another extractor or image size; what they or we do not say is not held.

    extractor, dimension: name and number of features of the one that is to measure; None where they are not known yet.
    """
    features = len(given.statistics.mean)
    if extractor is not None and given.extractor not in {None, extractor}:
        raise UserError(
            f"{source}: statistics of the extractor {given.extractor}, and images are to be measured with {extractor}; "
            f"measure them with {given.extractor}, or give other statistics"
        )
    if given.extractor is not None and given.revision != feature_revision(given.extractor):
        raise UserError(
            f"{source}: statistics of {given.extractor} as another version of distgan measured it (revision "
            f"{given.revision}, here {feature_revision(given.extractor)}); compute them anew with "
            f"`distgan data stats --out`"
        )
    if given.image_size not in {None, image_size}:
        raise UserError(
            f"{source}: statistics of images of {given.image_size} pixels, and those to be measured have {image_size}; "
            f"give statistics of images of that size"
        )
    if dimension is not None and features != dimension:
        raise UserError(
            f"{source}: statistics of {features} features, and the extractor {extractor or ''} makes {dimension}; "
            f"measure with the extractor that they were computed with"
        )


def _read_by_rank_0(source: str, world: World) -> RealStatistics:
    return world.from_rank_0(lambda: Retry()(lambda: read_statistics(source)))
