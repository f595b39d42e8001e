"""Feature statistics of real images in a file: `.npz` with `mu` and `sigma`, as the common tools write and read it."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distgan.bounds import check_zip
from distgan.errors import UserError
from distgan.metrics.frechet import GaussianStatistics

MOST_BYTES = 2**28  # of a file; 32 MiB are usual
_MOST_UNPACKED_BYTES = 2**29
_NAMES = ("mu", "sigma", "count", "floor", "floor_images", "extractor", "image_size", "revision")


class DamagedError(UserError):
    """A file that is not, or no longer, what its name says."""


@dataclass(frozen=True, eq=False)
class RealStatistics:
    """Statistics of the real images, and what they were taken from; a foreign file does not say the latter.

    floor: the distance between `floor_images` of the images and all of them: what as many real images measure. In files
        of earlier versions, which do not say of how many it is, it is that between two halves.
    extractor: name of the network that made the features.
    image_size: height and width that the images had.
    revision: of the features, where it is not the first (`known.KnownExtractor`).
    """

    statistics: GaussianStatistics
    floor: float | None = None
    extractor: str | None = None
    image_size: int | None = None
    floor_images: int | None = None
    revision: int = 1

    def to_bytes(self) -> bytes:
        """The contents of a file: `mu`, `sigma`, and beside them what is known. Equal statistics give equal bytes."""
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
        """Reads what `to_bytes`, or another tool, wrote. `source`: the file's name for messages.

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
    """Of how many real images the floor under a distance of `samples` images is: as many, or half where there are few.

    Against all images, more than half of them would measure next to nothing.
    """
    return min(samples, real_images // 2)


def _unusable(source: str, reason: str) -> DamagedError:
    return DamagedError(f"{source} is no file of feature statistics: {reason}; give another")
