"""A checkpoint measured outside its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgan.config.load import build_config
from distgan.evaluation.evaluator import Scores
from distgan.training.sampling import find_checkpoint
from distgan.training.standalone import score_checkpoint
from distgan.world import World
from gloo import run_workers
from runs import ALONE, run, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

MEASURES = "evaluation.metrics=[kernel,precision]"


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that is evaluated on two chunks and a bit."""
    storage = tmp_path_factory.mktemp("runs")
    config = tiny_config("quickstart", data, 4, "evaluation.samples=150", MEASURES)
    run(config, str(storage))
    return storage / "run"


def scores_of(world: World, url: str) -> Scores:
    checkpoint = find_checkpoint(url)
    return score_checkpoint(build_config(checkpoint.manifest.config, url), checkpoint, world)


def test_a_checkpoint_has_the_scores_that_its_run_found(trained: Path) -> None:
    (measured,) = find_checkpoint(str(trained)).manifest.progress["evaluations"]
    found = scores_of(ALONE, str(trained))
    assert found.distance == measured["distance"]
    assert found.more == measured["more"]


def test_scores_are_the_same_for_every_number_of_workers(trained: Path) -> None:
    alone = scores_of(ALONE, str(trained))
    for size in (2, 3):
        ranks = run_workers(scores_of, size, str(trained))
        for found in ranks:
            assert (found.distance, found.more) == (ranks[0].distance, ranks[0].more)
            assert found.distance == pytest.approx(alone.distance, rel=1e-6)
            for name, value in alone.more.items():
                assert found.more[name] == pytest.approx(value, rel=1e-6, abs=1e-6)
