"""`--continue-from`: a new run from the whole state of another, with the same values and with others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from command_line import Cli, one_line
from distgan.config.load import dump_config, load_config
from distgan.config.resume_rules import lasting_differences, mutable_keys
from distgan.config.schema import Config
from distgan.config.section import Mutable
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore, checkpoint_name
from distgan.training.events import RunStarted, StepMetrics, Summary
from distgan.training.inputs import RealBatch
from distgan.training.loop import Trainer
from distgan.training.manifest import manifest_bytes, parse_manifest
from distgan.training.progress import Pending, Progress, StepScores
from distgan.training.run_spec import RunSpec, plan_run
from distgan.training.starting_point import find_checkpoint
from distgan.training.state import check_continuable
from distgan.training.step import Step
from distgan.training.train import build_trainer, train
from gloo import run_workers
from runs import (
    ALONE,
    BATCH,
    Recorder,
    assert_same_bits,
    checkpoints,
    newest,
    run,
    script_distances,
    tiny_config,
)

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

FAMILIES = {
    "simultaneous": ("quickstart", "evaluation.every_kimg=0.032"),
    "sequential": ("wgan-gp-faces", "evaluation.every_kimg=0.096"),
}
CRITIC_STEPS_1 = ["objective.critic_steps=1", "training.precision=float64"]
G_LR, D_LR = "/generator_optimizer/param_groups/0/lr", "/discriminator_optimizer/param_groups/0/lr"


def continue_run(
    config: Config,
    storage: str,
    source: str,
    name: str = "new",
    *,
    distributed: Distributed = ALONE,
    stop_at: int | None = None,
) -> tuple[Summary, Recorder]:
    """Trains a run that continues another, or resumes it, as the command does."""
    recorder = Recorder(stop_at)
    job = plan_run(RunSpec(config, name, storage, continue_from=source)).spec
    return train(job, distributed, recorder), recorder


def wgan(data: str, steps: int, *overrides: str) -> Config:
    """Networks with a gradient penalty, in float64, with one discriminator update per step."""
    return tiny_config("wgan-gp-faces", data, steps, *CRITIC_STEPS_1, *overrides)


@pytest.fixture(scope="module")
def parent(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps of `wgan`."""
    storage = tmp_path_factory.mktemp("parent")
    run(wgan(data, 2), str(storage), "parent")
    return storage / "parent"


# The same values: the same bits.


def whole_and_continued(distributed: Distributed, config: Config, storage: str) -> None:
    run(config, storage, "whole", distributed=distributed)
    run(config, storage, "half", distributed=distributed, stop_at=3)
    train(RunSpec(config, "new", storage, continue_from=f"{storage}/half"), distributed, Recorder())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_same_values_give_the_same_bits(size: int, family: str, data: str, tmp_path: Path) -> None:
    preset, evaluated = FAMILIES[family]
    config = tiny_config(preset, data, 6, evaluated, "evaluation.patience=9", "checkpoint.keep_last=9")
    run_workers(whole_and_continued, size, config, str(tmp_path))
    whole = newest(str(tmp_path), "whole")
    assert [evaluation["step"] for evaluation in whole[1]["evaluations"]] == [2, 4, 6]
    assert_same_bits(newest(str(tmp_path), "new"), whole)
    assert checkpoints(str(tmp_path), "new").names() == [f"step-00000000{step}" for step in (3, 4, 6)]
    manifest = find_checkpoint(f"{tmp_path}/new", "last").manifest
    assert manifest.continued_from == f"{tmp_path}/half/checkpoints/step-000000003"
    assert find_checkpoint(f"{tmp_path}/whole").manifest.continued_from is None


def test_from_a_bucket_and_from_one_of_its_checkpoints(data: str, bucket: str) -> None:
    config = tiny_config("quickstart", data, 4, "checkpoint.every_kimg=0.016", "checkpoint.keep_last=9")
    run(config, bucket, "whole")
    continue_run(config, bucket, f"{bucket}/whole/checkpoints/step-000000001")
    assert_same_bits(newest(bucket, "new"), newest(bucket, "whole"))


def test_a_run_is_its_last_checkpoint_and_not_its_best(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_distances(monkeypatch, 1.0, 2.0, 3.0)
    run(tiny_config("quickstart", data, 2, "evaluation.every_kimg=0.016"), str(tmp_path))
    assert find_checkpoint(f"{tmp_path}/run").manifest.step == 1
    job = RunSpec(tiny_config("quickstart", data, 3, "evaluation.every_kimg=0.016"), "new", str(tmp_path))
    planned = plan_run(RunSpec(job.config, "new", str(tmp_path), continue_from=f"{tmp_path}/run")).spec
    assert planned.continue_from == f"{tmp_path}/run/checkpoints/step-000000002"


# Other values, from the first step on.


def test_the_first_step_has_the_new_rates(data: str, parent: Path, tmp_path: Path) -> None:
    """Twice the rate moves the generator twice as far, from the same moments."""
    rate = wgan(data, 3).optimizer.generator.lr
    before = newest(str(parent.parent), "parent")[0]
    moved = {}
    for factor in (1, 2):
        config = wgan(data, 3, f"optimizer.generator.lr={factor * rate:.9f}")
        storage = str(tmp_path / str(factor))
        continue_run(config, storage, str(parent))
        after = newest(storage, "new")[0]
        assert after[G_LR] == pytest.approx(factor * rate)
        assert after[D_LR] == before[D_LR]
        moved[factor] = {
            path: after[path] - value
            for path, value in before.items()
            if path.startswith("/generator/") and path.endswith("weight")
        }
        taken_over = find_checkpoint(f"{storage}/new/checkpoints/step-000000002").tensors
        assert taken_over["generator_optimizer"]["param_groups"][0]["lr"] == pytest.approx(factor * rate)
    for path, once in moved[1].items():
        assert once.abs().max() > 0
        torch.testing.assert_close(moved[2][path], 2 * once, rtol=1e-6, atol=1e-12)


def rates_of_steps(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Runs a session; returns the rates of both optimizers at each generator update."""
    seen: list[tuple[float, float]] = []
    optimizers, step = trainer.state.optimizers, trainer.step.generator_update

    def generator_update(batch: RealBatch, update: int, images: int) -> Any:
        groups = (optimizers.generator.param_groups[0], optimizers.discriminator.param_groups[0])
        seen.append((groups[0]["lr"], groups[1]["lr"]))
        return step(batch, update, images)

    monkeypatch.setattr(trainer.step, "generator_update", generator_update)
    trainer.run()
    return seen


def test_new_rates_decay_from_where_the_run_is(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 32 of the 64 images until the rates are 0."""
    factor = "optimizer.lr_factor={from: 1, to: 0, until_kimg: 0.064, shape: linear}"
    decay = [factor, "optimizer.discriminator.lr=0.004"]
    run(wgan(data, 2, *decay, "optimizer.generator.lr=0.001", "training.kimg=0.032"), str(tmp_path))
    config = wgan(data, 4, *decay, "optimizer.generator.lr=0.008", "training.kimg=0.064")
    trainer = build_trainer(RunSpec(config, "new", str(tmp_path), continue_from=f"{tmp_path}/run"), ALONE, Recorder())
    assert trainer.state.optimizers.generator.param_groups[0]["lr"] == pytest.approx(0.004)
    seen = rates_of_steps(trainer, monkeypatch)
    assert seen == [pytest.approx((0.004, 0.002)), pytest.approx((0.002, 0.001))]


def first_terms(recorder: Recorder) -> dict[str, float]:
    event = recorder.of(StepMetrics)[0]
    assert isinstance(event, StepMetrics)
    return event.terms


def continued(distributed: Distributed, config: Config, storage: str, source: str) -> list[dict[str, float]]:
    _, recorder = continue_run(config, storage, source, str(distributed.size), distributed=distributed)
    return [event.terms for event in recorder.of(StepMetrics)]


def test_the_first_step_has_the_new_penalty(data: str, parent: Path, tmp_path: Path) -> None:
    """The penalty's term with twice the weight is twice as large, for the same slope; one and two workers agree."""
    weight = wgan(data, 3).objective.options["gp_weight"]
    once = first_terms(continue_run(wgan(data, 3), str(tmp_path), str(parent))[1])
    config = wgan(data, 4, f"objective.gp_weight={2 * weight}", "optimizer.discriminator.lr=1e-3")
    rows = {size: run_workers(continued, size, config, str(tmp_path), str(parent))[0] for size in (1, 2)}
    assert rows[1][0]["penalty/norm"] == pytest.approx(once["penalty/norm"], rel=1e-12)
    assert rows[1][0]["loss/penalty"] == pytest.approx(2 * once["loss/penalty"], rel=1e-12)
    assert len(rows[1]) == len(rows[2]) == 2
    for alone, two in zip(rows[1], rows[2], strict=True):
        assert two == pytest.approx(alone, rel=1e-9)
    one, other = newest(str(tmp_path), "1"), newest(str(tmp_path), "2")
    for path, value in one[0].items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(other[0][path], value, rtol=1e-7, atol=1e-9)


def test_other_critic_steps_take_the_next_batches(
    data: str, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Tensor] = []
    discriminator_update = Step.discriminator_update

    def noted(step: Step, batch: RealBatch, update: int) -> Any:
        batches.append(torch.cat([part.images for part in batch]).clone())
        return discriminator_update(step, batch, update)

    monkeypatch.setattr(Step, "discriminator_update", noted)
    run(wgan(data, 8), str(tmp_path), "whole")
    whole = list(batches)
    batches.clear()
    config = wgan(data, 8, "objective.critic_steps=3", f"training.kimg={8 * BATCH / 1000}")
    summary, _ = continue_run(config, str(tmp_path), str(parent))
    assert len(batches) == 6
    assert all(torch.equal(one, other) for one, other in zip(batches, whole[2:], strict=True))
    progress = newest(str(tmp_path), "new")[1]
    assert (progress["step"], progress["discriminator_updates"], progress["batches"]) == (4, 8, 8)
    assert (progress["images"], summary.kimg) == (8 * BATCH, 8 * BATCH / 1000)
    plan = plan_run(RunSpec(config, "dry", str(tmp_path), continue_from=str(parent)), dry_run=True)
    assert plan.steps == 4


def test_a_resume_uses_its_own_state(data: str, parent: Path, tmp_path: Path) -> None:
    """Stopped at each step, with and without the option, and after the other run is deleted: the same bits."""
    config = wgan(data, 9, "objective.critic_steps=2", "optimizer.generator.lr=1e-3", "objective.gp_weight=3")
    source = str(shutil.copytree(parent, tmp_path / "parent"))
    continue_run(config, str(tmp_path / "whole"), source)
    continue_run(config, str(tmp_path), source, stop_at=3)
    shutil.rmtree(source)
    continue_run(config, str(tmp_path), source, stop_at=4)
    last, recorder = run(config, str(tmp_path), "new")
    assert (recorder.of(RunStarted)[0].resumed, last.resumed_at_kimg) == (True, 6 * BATCH / 1000)
    assert_same_bits(newest(str(tmp_path), "new"), newest(str(tmp_path / "whole"), "new"))
    manifest = find_checkpoint(f"{tmp_path}/new", "last").manifest
    assert manifest.continued_from == f"{source}/checkpoints/step-000000002"
    assert manifest.seconds is not None
    with pytest.raises(UserError, match=r"and began from .*step-000000002; leave --init-from out"):
        plan_run(RunSpec(config, "new", str(tmp_path), init_from=source))
    other = wgan(data, 9, "objective.critic_steps=2", "optimizer.generator.lr=1e-3", "objective.gp_weight=4")
    with pytest.raises(UserError, match=r"objective\.gp_weight was 3\.0 and is 4\.0; set them back") as refused:
        plan_run(RunSpec(other, "new", str(tmp_path)))
    assert f"another --name and --continue-from {tmp_path}/new, " in str(refused.value)
    lasting = wgan(data, 9, "optimizer.generator.lr=1e-3", "generator.width=8")
    with pytest.raises(UserError, match=r"set them back to resume it, or start a new run with another --name$"):
        plan_run(RunSpec(lasting, "new", str(tmp_path)))


# What it begins with.


def test_a_run_that_is_killed_at_once_has_the_state(data: str, parent: Path, tmp_path: Path, cli: Cli) -> None:
    """The new run has a checkpoint before it trains: last, best and samples are those of the other run."""
    job = plan_run(RunSpec(wgan(data, 3), "new", str(tmp_path), continue_from=str(parent))).spec
    recorder = Recorder(on_event=lambda event: stop() if isinstance(event, StepMetrics) else None)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, ALONE, recorder)
    assert recorder.of(RunStarted)[0].resumed is False
    assert checkpoints(str(tmp_path), "new").names() == ["step-000000002"]
    assert newest(str(tmp_path), "new")[1] == newest(str(parent.parent), "parent")[1]
    assert cli("sample", f"{tmp_path}/new", "--count", "4", "--out", "new.npy").code == 0
    assert cli("sample", str(parent), "--count", "4", "--out", "old.npy").code == 0
    assert (tmp_path / "new.npy").read_bytes() == (tmp_path / "old.npy").read_bytes()


def test_evaluations_count_and_the_best_is_one_of_its_own(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_distances(monkeypatch, 5.0, 3.0, 4.0, 6.0, 3.5)
    often = ["evaluation.every_kimg=0.016", "checkpoint.keep_last=1"]
    run(tiny_config("quickstart", data, 3, *often), str(tmp_path), "old")  # best at step 2
    config = tiny_config("quickstart", data, 9, *often, "evaluation.patience=2")
    summary, _ = continue_run(config, str(tmp_path), f"{tmp_path}/old")
    assert (summary.reason, summary.steps) == ("plateau", 4)
    assert (summary.best, summary.best_kimg, summary.best_checkpoint) == (3.0, 0.032, "step-000000003")
    assert checkpoints(str(tmp_path), "new").names() == ["step-000000003", "step-000000004"]
    longer = tiny_config("quickstart", data, 9, *often, "evaluation.patience=3")
    summary, _ = continue_run(longer, str(tmp_path), f"{tmp_path}/old")
    assert (summary.steps, summary.best_checkpoint) == (5, "step-000000005")
    assert summary.untrained is None


def test_a_pending_evaluation_is_that_of_the_other_run(data: str, parent: Path, tmp_path: Path) -> None:
    """That of the loaded checkpoint is finished here; that of an earlier checkpoint is dropped."""
    for pending, kept in ((2, True), (1, False)):
        source = shutil.copytree(parent, tmp_path / f"from {pending}")
        path = source / "checkpoints/step-000000002/manifest.json"
        manifest = parse_manifest(path.read_bytes(), checkpoint_name(2), str(path))
        progress = Progress.from_dict(manifest.progress)
        progress.evaluations, progress.pending = [StepScores(1, 16, 2.0)], Pending(pending, pending * BATCH)
        path.write_bytes(manifest_bytes(manifest.model_copy(update={"progress": progress.as_dict()})))
        continue_run(wgan(data, 3), str(tmp_path), str(source), f"of-{pending}")
        steps = [one["step"] for one in newest(str(tmp_path), f"of-{pending}")[1]["evaluations"]]
        assert steps == ([1, 2, 3] if kept else [1, 3])


def test_a_manifest_of_an_earlier_version(data: str, parent: Path, tmp_path: Path) -> None:
    source = shutil.copytree(parent, tmp_path / "old")
    path = source / "checkpoints/step-000000002/manifest.json"
    content = json.loads(path.read_text())
    del content["continued_from"], content["manifest_sha256"]
    path.write_text(json.dumps(content))
    checkpoint = CheckpointStore(Storage.open(str(source))).newest_manifest()
    assert checkpoint is not None
    assert checkpoint.continued_from is None
    continue_run(wgan(data, 3), str(tmp_path), str(source))
    assert newest(str(tmp_path), "new")[1]["step"] == 3


def test_the_plan_names_it(data: str, parent: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "new.yaml").write_text(dump_config(wgan(data, 3)))
    result = cli("train", "new.yaml", "--dry-run", "--name", "new", "--continue-from", str(parent))
    assert result.code == 0
    assert f"--continue-from {parent}/checkpoints/step-000000002" in result.out
    assert "0.032 kimg; its run began with the state of" in result.err
    result = cli("train", "new.yaml", "--no-ray", "--name", "new", "--continue-from", str(parent))
    assert result.code == 0
    result = cli("train", "new.yaml", "--no-ray", "--name", "new", "--continue-from", f"{tmp_path}/other")
    assert f"and began from {parent}/checkpoints/step-000000002; leave --continue-from out" in one_line(result)


# What may differ.


def test_mutable_keys() -> None:
    rates = {"optimizer.generator.lr": Mutable(), "optimizer.discriminator.lr": Mutable()}
    switches = ("gamma", "r1_weight", "r2_weight")
    weights = {"objective.gp_weight": Mutable(), **{f"objective.{key}": Mutable(switch=True) for key in switches}}
    assert mutable_keys() == rates | weights | {"objective.critic_steps": Mutable()}


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        (["objective.r1_weight=1"], ["objective.r1_weight=2", "optimizer.generator.lr=1e-5", "training.kimg=7"], []),
        (["objective.r1_weight=0"], ["objective.r1_weight=2"], ["objective.r1_weight"]),
        (["objective.r1_weight=2"], ["objective.r1_weight=0"], ["objective.r1_weight"]),
        (["objective.r1_weight=0"], ["objective.r1_weight=0.0", "objective.critic_steps=3"], []),
        ([], ["seed=1", "optimizer.generator.beta1=0.4"], ["optimizer.generator.beta1", "seed"]),
    ],
)
def test_what_cannot_change(before: list[str], after: list[str], refused: list[str]) -> None:
    old, new = load_config("sagan-cifar", before), load_config("sagan-cifar", after)
    assert list(lasting_differences(old, new)) == refused


def test_a_run_that_was_not_planned_is_checked_too(data: str, parent: Path, tmp_path: Path) -> None:
    job = RunSpec(wgan(data, 3, "generator.width=8"), "new", str(tmp_path), continue_from=str(parent))
    with pytest.raises(UserError, match=r"generator\.width was 4 and is 8"):
        train(job, ALONE, Recorder())
    assert not (tmp_path / "new").exists()
    checkpoint = find_checkpoint(str(parent))
    with pytest.raises(UserError, match=r"0\.032 kimg were trained there, and training\.kimg=0\.032"):
        check_continuable(checkpoint, wgan(data, 2), checkpoint.manifest.data_hash)
