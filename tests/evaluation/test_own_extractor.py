"""Distances of a user's own features."""

from __future__ import annotations

import pytest
import torch

from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import load_extractor
from own_extractors import Moments
from runs import run, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


def test_an_own_extractor_gives_its_features() -> None:
    extractor = load_extractor("own_extractors:Moments")
    assert (extractor.name, extractor.dimension) == ("moments", 8)
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    features = extractor(images)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, Moments(torch.device("cpu"))(images).float())


def test_a_run_is_judged_by_it_under_its_own_name(data: str, tmp_path: object) -> None:
    config = tiny_config("quickstart", data, 2, "evaluation.extractor=own_extractors:Moments")
    summary, _ = run(config, str(tmp_path), "own")
    assert summary.metric == f"fd_moments_{config.evaluation.samples}"
    assert summary.best is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nameless", "it cannot be called 'fid_of_mine': its `name` has small letters"),
        ("Dimensionless", "it must be callable, and its `dimension` the length of a feature vector"),
        ("Untrue", r"3 images must give a tensor \(3, 7\), not \(3, 8\)"),
        ("Failing", r"it raised RuntimeError: no such layer \(own_extractors\.py, line \d+\)"),
        ("Unmade", r"its constructor, given a device, raised TypeError"),
    ],
)
def test_one_that_is_wrong_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"evaluation\.extractor=own_extractors:{name}: .*{message}") as caught:
        load_extractor(f"own_extractors:{name}")(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert "\n" not in str(caught.value)
