"""Files of feature statistics: ours, those of other tools, and what is none."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distgan.errors import DamagedError
from distgan.evaluation.feature_statistics import FeatureSums, GaussianStatistics
from distgan.evaluation.reference_files import RealStatistics

SOURCE = "s3://bucket/stats.npz"


@pytest.fixture
def real() -> RealStatistics:
    sums = FeatureSums.zeros(6)
    sums.update(torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return RealStatistics(sums.statistics(), floor=0.25, extractor="fd_lite0", image_size=64)


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_a_file_keeps_every_bit_and_is_reproducible(real: RealStatistics) -> None:
    data = real.to_bytes()
    again = RealStatistics.from_bytes(data, SOURCE)
    assert torch.equal(again.statistics.mean, real.statistics.mean)
    assert torch.equal(again.statistics.covariance, real.statistics.covariance)
    assert (again.statistics.count, again.floor, again.extractor, again.image_size) == (50, 0.25, "fd_lite0", 64)
    assert again.to_bytes() == data


def test_other_tools_read_ours_and_we_theirs(real: RealStatistics, tmp_path: Path) -> None:
    path = tmp_path / "ours.npz"
    path.write_bytes(real.to_bytes())
    with np.load(path) as ours:
        mu, sigma = ours["mu"], ours["sigma"]
    np.savez_compressed(tmp_path / "theirs.npz", mu=mu, sigma=sigma)
    theirs = RealStatistics.from_bytes((tmp_path / "theirs.npz").read_bytes(), SOURCE)
    assert torch.equal(theirs.statistics.covariance, real.statistics.covariance)
    assert (theirs.statistics.count, theirs.floor, theirs.extractor, theirs.image_size) == (0, None, None, None)


def _encrypted(archive: bytes) -> bytes:
    """With the flag that says so in the directory at its end and before its first file."""
    flags = archive.index(b"PK\x01\x02") + 8
    changed = bytearray(archive)
    changed[6] |= 1
    changed[flags] |= 1
    return bytes(changed)


def test_what_is_no_such_file_is_refused_with_its_source(real: RealStatistics) -> None:
    data = real.to_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    found = real.statistics
    lopsided = found.covariance.clone()
    lopsided[0, 1] += 1
    plain = {"mu": np.zeros(3), "sigma": np.eye(3), "count": np.int64(5)}
    wrong = {
        "empty": b"",
        "text": b"not a zip file",
        "short": data[: len(data) // 2],
        "flipped": bytes(flipped),
        "array alone": data[data.index(b"\x93NUMPY") :],
        "no sigma": npz(mu=plain["mu"]),
        "pickle": npz(**{**plain, "mu": np.array([object()])}),
        "integers": npz(**{**plain, "mu": np.zeros(3, np.int64)}),
        "dimension": npz(**{**plain, "mu": np.zeros(4)}),
        "several counts": npz(**{**plain, "count": np.zeros(2)}),
        "count below 0": npz(**{**plain, "count": np.int64(-1)}),
        "variance below 0": npz(**{**plain, "sigma": -np.eye(3)}),
        "beyond float64": npz(**{**plain, "mu": np.full(3, np.longdouble("1e4000"))}),
        "infinite size": npz(**plain, image_size=np.inf),
        "floor": npz(**plain, floor=np.nan),
        "encrypted": _encrypted(data),
        "nan": replace(real, statistics=GaussianStatistics(found.mean * float("nan"), found.covariance, 5)).to_bytes(),
        "lopsided": replace(real, statistics=GaussianStatistics(found.mean, lopsided, 5)).to_bytes(),
    }
    assert RealStatistics.from_bytes(npz(**plain), SOURCE).statistics.count == 5
    for kind, content in wrong.items():
        with pytest.raises(DamagedError, match=r"^s3://bucket/stats\.npz is no file of feature statistics: "):
            pytest.fail(f"{kind}: {RealStatistics.from_bytes(content, SOURCE)}")
