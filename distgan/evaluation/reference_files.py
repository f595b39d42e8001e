"""Files with feature statistics of real images, of this package or of another tool."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distgan.bounds import check_zip
from distgan.config.schema import EvaluationConfig
from distgan.distributed import Distributed
from distgan.errors import DamagedError, UserError
from distgan.evaluation.extractors.extractor import FeatureExtractor
from distgan.evaluation.extractors.published import feature_count, feature_revision
from distgan.evaluation.feature_statistics import GaussianStatistics
from distgan.evaluation.metrics.registry import check_statistics_suffice
from distgan.storage.retry import Retry
from distgan.storage.storage import NotFoundError, Storage

MOST_BYTES = 2**28  # of a file; 32 MiB are usual

_MOST_UNPACKED_BYTES = 2**29

_NAMES = ("mu", "sigma", "count", "floor", "floor_images", "extractor", "image_size", "revision")


@dataclass(frozen=True, eq=False)
class RealStatistics:
    """Statistics of real images, and their origin where the file has it; files of other tools do not.

    floor: the distance between `floor_images` of the images and all of them. In files of earlier versions, which do not
        have `floor_images`, it is that between two halves.
    extractor: name of the network that made the features.
    image_size: height and width that the images had.
    revision: of the features, where it is not the first (`published.KnownExtractor`).
    """

    statistics: GaussianStatistics
    floor: float | None = None
    extractor: str | None = None
    image_size: int | None = None
    floor_images: int | None = None
    revision: int = 1

    def to_bytes(self) -> bytes:
        """The contents of a file: `mu`, `sigma` and the origin. Equal statistics give equal bytes."""
        found = self.statistics
        arrays: dict[str, Any] = {"mu": found.mean.numpy(), "sigma": found.covariance.numpy(), "count": found.count}
        arrays |= {"floor": self.floor, "floor_images": self.floor_images}
        arrays |= {"extractor": self.extractor, "image_size": self.image_size}
        arrays |= {"revision": self.revision if self.revision > 1 else None}
        known: dict[str, Any] = {name: np.array(value) for name, value in arrays.items() if value is not None}
        buffer = io.BytesIO()
        np.savez(buffer, **known)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> RealStatistics:
        """Reads a file of `to_bytes` or another tool; `source` is its name in messages.

        Raises DamagedError where `data` is damaged or something else.
        """
        try:
            file = io.BytesIO(data)
            check_zip(file, source, _MOST_UNPACKED_BYTES)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files if name in _NAMES}
            mean, covariance = arrays["mu"], arrays["sigma"]
            count = int(arrays.get("count", 0))
            floor = float(arrays["floor"]) if "floor" in arrays else None
            floor_images = int(arrays["floor_images"]) if "floor_images" in arrays else None
            extractor = str(arrays["extractor"]) if "extractor" in arrays else None
            image_size = int(arrays["image_size"]) if "image_size" in arrays else None
            revision = int(arrays.get("revision", 1))
        except UserError as error:
            raise DamagedError(str(error)) from None
        except (ValueError, LookupError, EOFError, OSError, TypeError, AttributeError, OverflowError) as error:
            raise _unusable(source, "it cannot be read as an .npz file with mu and sigma") from error
        except (zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
            raise _unusable(source, "it is no whole .npz file") from error
        if not all(array.dtype.kind == "f" for array in (mean, covariance)):
            raise _unusable(source, "mu and sigma must be floating-point arrays")
        if mean.ndim != 1 or mean.size == 0 or covariance.shape != (mean.size, mean.size):
            raise _unusable(source, f"mu {mean.shape} and sigma {covariance.shape} do not go together")
        with np.errstate(over="ignore"):
            mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all() and math.isfinite(floor or 0.0)):
            raise _unusable(source, "it has values that are not finite")
        if count < 0 or (covariance.diagonal() < 0).any():
            raise _unusable(source, "it has a negative count or variance")
        if not np.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-9):
            raise _unusable(source, "its sigma is not symmetric")
        covariance = covariance / 2 + covariance.T / 2
        statistics = GaussianStatistics(torch.from_numpy(mean), torch.from_numpy(covariance), count)
        return cls(statistics, floor, extractor, image_size, floor_images, revision)


def floor_images(samples: int, real_images: int) -> int:
    """The number of real images for the floor of `samples` images: as many, or half of all if there are few.

    More than half of the images are at almost no distance from all of them.
    """
    return min(samples, real_images // 2)


def _unusable(source: str, reason: str) -> DamagedError:
    return DamagedError(f"{source} is no file of feature statistics: {reason}; give another")


class StatisticsReference:
    """The statistics in the file at `source`, which rank 0 reads. See `Reference`.

    The floor is the file's, if it is for `samples` images.
    """

    def __init__(
        self, source: str, distributed: Distributed, extractor: FeatureExtractor, image_size: int, samples: int
    ) -> None:
        """Raises UserError, on every rank, where they cannot be read or are not of this extractor and size."""
        self._statistics = _read_by_rank_0(source, distributed)
        check_statistics(self._statistics, source, extractor.name, extractor.dimension, image_size)
        self.count, self.is_complete = self._statistics.statistics.count, False
        if self._statistics.floor_images != floor_images(samples, self.count):
            self._statistics = replace(self._statistics, floor=None, floor_images=None)

    def statistics(self) -> RealStatistics:
        return self._statistics

    def features(self, count: int) -> Tensor:
        raise AssertionError("check_statistics_suffice refuses metrics that need features beside a file of statistics")


def read_statistics(source: str) -> RealStatistics:
    """The statistics in the file at a path or URL. Raises UserError where there is none."""
    folder, _, name = Storage.open(source).url.rpartition("/")
    try:
        return RealStatistics.from_bytes(Storage.open(folder or "/").read_bytes(name, most=MOST_BYTES), source)
    except NotFoundError:
        raise UserError(f"{source}: no such file of statistics; `distgan data stats --out` writes one") from None


def check_given_statistics(evaluation: EvaluationConfig, source: str, image_size: int) -> RealStatistics:
    """The statistics in a file, checked against a configuration as far as possible without the extractor.

    Raises UserError where there is none, for those of another extractor or image size, and for metrics that need more.
    """
    check_statistics_suffice(evaluation)
    given, extractor = read_statistics(source), evaluation.extractor
    known = feature_count(extractor)
    check_statistics(given, source, None if known is None else extractor, known, image_size)
    return given


def check_statistics(
    given: RealStatistics, source: str, extractor: str | None, dimension: int | None, image_size: int
) -> None:
    """Raises UserError for statistics of another extractor or image size, where both sides are known.

    extractor, dimension: name and number of features of the extractor in use; None where they are not known yet.
    """
    features = len(given.statistics.mean)
    if extractor is not None and given.extractor not in {None, extractor}:
        raise UserError(
            f"{source}: statistics of the extractor {given.extractor}, and images are evaluated with {extractor}; "
            f"use {given.extractor}, or give other statistics"
        )
    if given.extractor is not None and given.revision != feature_revision(given.extractor):
        raise UserError(
            f"{source}: statistics of {given.extractor} as another version of distgan computed it (revision "
            f"{given.revision}, here {feature_revision(given.extractor)}); compute them again with "
            f"`distgan data stats --out`"
        )
    if given.image_size not in {None, image_size}:
        raise UserError(
            f"{source}: statistics of images of {given.image_size} pixels, and the images to evaluate have "
            f"{image_size}; give statistics of images of that size"
        )
    if dimension is not None and features != dimension:
        raise UserError(
            f"{source}: statistics of {features} features, and the extractor {extractor or ''} makes {dimension}; "
            f"use the extractor that they were computed with"
        )


def _read_by_rank_0(source: str, distributed: Distributed) -> RealStatistics:
    return distributed.from_rank_0(lambda: Retry()(lambda: read_statistics(source)))
