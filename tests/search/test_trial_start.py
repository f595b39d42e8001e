"""A trial's values hold from its first step on, not only from its second."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgan.search.plan import SearchLimits, SearchOptions
from distgan.search.planning import SearchSpec, plan_search
from distgan.search.record import Trial
from distgan.search.search_state import SearchState
from distgan.training.train import build_trainer
from runs import ALONE, TINY, Recorder, pack_bricks

SPACE = {
    "optimizer.generator.lr": "loguniform(1e-5, 1e-3)",
    "optimizer.discriminator.lr": "optimizer.generator.lr * choice(2, 4)",
    "objective.critic_steps": "choice(2, 3)",
    "objective.gp_weight": "loguniform(0.1, 100)",
}


@pytest.fixture
def job(tmp_path: Path) -> SearchSpec:
    data = pack_bricks(tmp_path / "data")
    return plan_search(
        SearchOptions(
            "wgan-gp-faces",
            "search",
            str(tmp_path),
            [*TINY, f"data.url={data}", "training.kimg=1"],
            [f"{key}={entry}" for key, entry in SPACE.items()],
            limits=SearchLimits(trials=3),
        )
    )


def test_the_first_step_has_the_drawn_values(job: SearchSpec) -> None:
    state = SearchState(job.record, job.space, job.sampler(), job.search)
    trials = [trial for trial in (state.next_trial() for _ in range(3)) if isinstance(trial, Trial)]
    assert len({trial.overrides["optimizer.generator.lr"] for trial in trials}) == 3
    for trial in trials:
        values, recorder = trial.overrides, Recorder(stop_at=1)
        session = build_trainer(job.trial_spec(trial), ALONE, recorder)
        optimizers = session.state.optimizers
        rates = [
            {float(group["lr"]) for group in optimizer.param_groups}
            for optimizer in (optimizers.generator, optimizers.discriminator)
        ]
        assert rates == [{values["optimizer.generator.lr"]}, {values["optimizer.discriminator.lr"]}]
        assert session.state.progress.step == 0
        session.run()
        session.checkpoints.join()
        assert session.state.progress.step == 1
        # Real images by the drawn critic steps, each a fresh batch.
        assert session.state.progress.batches == values["objective.critic_steps"]
        manifest = session.checkpoints.newest_manifest()
        assert manifest is not None
        assert manifest.config["objective"]["gp_weight"] == values["objective.gp_weight"]
