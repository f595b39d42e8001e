"""The yardstick of distances, on few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.yardstick import blurred, image_sets, main, noisy, read_images
from runs import pack_bricks

pytestmark = pytest.mark.timeout(60)


def test_sets_of_known_images(data: str) -> None:
    sets = image_sets(data, 64)
    counts = [len(images) for name, images in sets if name == "real"]
    assert counts == [16, 32, 64, 128, 256]
    assert all(images.shape == (64, 16, 16, 1) and images.dtype == np.uint8 for _, images in sets[len(counts) :])
    assert [name for name, _ in sets[-2:]] == ["real, of one class", "gray, all alike"]


def test_images_are_changed_as_said(data: str) -> None:
    images = read_images(data, np.arange(8))
    assert images.shape == (8, 16, 16, 1)
    changed = noisy(images, 4.0).astype(int) - images
    inner = (images > 20) & (images < 235)
    assert np.std(changed[inner]) == pytest.approx(4, rel=0.15)
    edges = [np.abs(np.diff(each.astype(int), axis=2)).mean() for each in (images, blurred(images, 1.0))]
    assert edges[1] < edges[0]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_table(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--data", data, "--held-out", pack_bricks(tmp_path / "others", seed=1), "--samples", "32"])
    printed = capsys.readouterr().out
    assert "fd_lite0 against 300 real images" in printed
    assert "noisy, Gaussian of 64 gray levels" in printed
