"""A run that is stopped or killed anywhere and resumed ends in the same bits as an uninterrupted one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.inference.sampling import sample_images
from distgan.storage import retry
from distgan.storage.storage import Storage, UnavailableError
from distgan.training import checkpoints as checkpoints_module
from distgan.training.checkpoints import checkpoint_name
from distgan.training.events import (
    CheckpointSaved,
    EvaluationResult,
    Event,
    Notice,
    PhaseStarted,
    RunFinished,
    RunStarted,
    SmallDatasetWarning,
    StepMetrics,
)
from distgan.training.manifest import Manifest, with_checksum
from distgan.training.run_spec import RunSpec
from distgan.training.starting_point import find_checkpoint
from distgan.training.state_file import StateFile
from distgan.training.train import train
from gloo import run_until_death, run_workers
from runs import (
    ALONE,
    BATCH,
    Recorder,
    assert_same_bits,
    checkpoints,
    kill_this_process,
    newest,
    pack_bricks,
    run,
    script_distances,
    tiny_config,
)

pytestmark = pytest.mark.timeout(120)

STEPS = 6
# At steps 2, 4 and 6; also where a step has three discriminator updates.
EVALUATED = ["evaluation.every_kimg=0.032", "evaluation.patience=9"]
FAMILIES = {
    "simultaneous": ("quickstart", EVALUATED),
    "sequential": ("wgan-gp-faces", ["evaluation.every_kimg=0.096", "evaluation.patience=9"]),
}


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE_S", 0.01)


def family_config(family: str, data: str, *overrides: str) -> Config:
    preset, changes = FAMILIES[family]
    return tiny_config(preset, data, STEPS, *changes, *overrides)


# Stopped, and killed.


def whole_and_stopped(distributed: Distributed, config: Config, storage: str) -> list[str]:
    """Trains an uninterrupted run, and one stopped after each step; returns why each session of the latter ended."""
    run(config, storage, "whole", distributed=distributed)
    return [
        run(config, storage, "stopped", distributed=distributed, stop_at=step)[0].reason for step in range(1, STEPS + 1)
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_stopping_at_every_step_changes_no_bit(size: int, family: str, data: str, tmp_path: Path) -> None:
    config = family_config(family, data)
    for reasons in run_workers(whole_and_stopped, size, config, str(tmp_path)):
        assert reasons == ["interrupted"] * (STEPS - 1) + ["budget"]
    whole = newest(str(tmp_path), "whole")
    assert whole[1]["step"] == STEPS
    assert [evaluation["step"] for evaluation in whole[1]["evaluations"]] == [2, 4, 6]
    assert_same_bits(newest(str(tmp_path), "stopped"), whole)


class Killer(Recorder):
    """Kills its process at the event `kind` of a step; "evaluated" is the call on every rank."""

    def __init__(self, kind: str, step: int) -> None:
        super().__init__()
        self.kind, self.at = kind, step

    def event(self, event: Event) -> None:
        if type(event).__name__ == self.kind and getattr(event, "step", None) == self.at:
            kill_this_process()

    def evaluated(self, event: EvaluationResult) -> None:
        if self.kind == "evaluated" and event.step == self.at:
            kill_this_process()


def killed(distributed: Distributed, config: Config, storage: str, rank: int, kind: str, step: int) -> None:
    reporter = Killer(kind, step) if distributed.rank == rank else Recorder()
    train(RunSpec(config, "killed", storage), distributed, reporter)


def finished(distributed: Distributed, config: Config, storage: str, name: str) -> int:
    """Trains to the end; returns the step that the session began at."""
    return round(run(config, storage, name, distributed=distributed)[0].resumed_at_kimg * 1000) // BATCH


# Where, and which steps a resume may begin at.
KILLS = {
    "inside a step, the last checkpoint perhaps under way": (0, "StepMetrics", 3, {0, 2}),
    "after an evaluation, before its checkpoint": (0, "EvaluationResult", 4, {2}),
    "once a checkpoint is whole": (0, "CheckpointSaved", 4, {4}),
    "at the end, before the last checkpoint": (0, "EvaluationResult", 6, {4}),
    "another rank, while rank 0 writes": (1, "evaluated", 4, {2, 4}),
}


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_being_killed_changes_no_bit(size: int, data: str, tmp_path: Path) -> None:
    config, storage = family_config("simultaneous", data), str(tmp_path)
    run_workers(finished, size, config, storage, "whole")
    for where, (rank, kind, step, begins) in KILLS.items():
        if rank < size:
            deaths = run_until_death(killed, size, config, storage, rank, kind, step)
            assert deaths[rank].exit_code == -9, where
            assert run_workers(finished, size, config, storage, "killed")[0] in begins, where
            assert_same_bits(newest(storage, "killed"), newest(storage, "whole"))
            shutil.rmtree(tmp_path / "killed")


def test_a_resume_may_have_another_number_of_workers(data: str, tmp_path: Path) -> None:
    config = family_config("simultaneous", data, "training.precision=float64")
    run(config, str(tmp_path), "alone")
    run(config, str(tmp_path), "grown", stop_at=3)
    assert run_workers(finished, 3, config, str(tmp_path), "grown") == [3, 3, 3]
    grown, alone = newest(str(tmp_path), "grown"), newest(str(tmp_path), "alone")
    assert grown[0].keys() == alone[0].keys()
    for path, value in alone[0].items():
        torch.testing.assert_close(grown[0][path], value, rtol=1e-6, atol=1e-9, msg=lambda text, p=path: f"{p}: {text}")
    assert grown[1]["batches"] == alone[1]["batches"] == STEPS
    distances = [[evaluation["distance"] for evaluation in run[1]["evaluations"]] for run in (grown, alone)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-3)


def started(distributed: Distributed, config: Config, storage: str) -> None:
    """Rank 1 has another disk, as on a machine that does not share `storage`."""
    run(config, storage if distributed.rank == 0 else f"{storage}-elsewhere", distributed=distributed)


def test_a_rank_that_cannot_read_the_checkpoint_ends_the_run(data: str, tmp_path: Path) -> None:
    config, storage = tiny_config("quickstart", data, 2), str(tmp_path / "runs")
    run(config, storage, stop_at=1)
    with pytest.raises(UserError, match=r"worker 1 cannot read checkpoint step-000000001.*--storage"):
        run_workers(started, 2, config, storage)


def test_more_workers_than_groups_are_refused(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 1)
    with pytest.raises(UserError, match=r"5 workers.*scale\.groups=4"):
        run(config, str(tmp_path), distributed=Distributed(0, 5, torch.device("cpu")))


# Damaged checkpoints.


def cut_state(folder: Path) -> None:
    state = folder / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])


def flip_a_bit(folder: Path) -> None:
    state = folder / "state.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)


def cut_manifest(folder: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:200])


def change_manifest(**changes: Any) -> Callable[[Path], object]:
    """Changes values of a manifest, merging objects; `...` removes a key."""

    def inflict(folder: Path) -> None:
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        for key, value in changes.items():
            content[key] = content[key] | value if isinstance(value, dict) else value
        path.write_text(json.dumps(with_checksum({key: value for key, value in content.items() if value is not ...})))

    return inflict


def write_manifest(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "manifest.json").write_text(text)


def put_folder(name: str) -> Callable[[Path], object]:
    def inflict(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()
        (folder / name / "x").touch()

    return inflict


def put_state(content: bytes) -> Callable[[Path], object]:
    """Replaces the state, with a manifest that matches it."""

    def inflict(folder: Path) -> None:
        (folder / "state.pt").write_bytes(content)
        change_manifest(state_bytes=len(content), state_sha256=hashlib.sha256(content).hexdigest())(folder)

    return inflict


def change_state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def inflict(folder: Path) -> None:
        tensors = torch.load(folder / "state.pt", weights_only=True)
        change(tensors)
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        put_state(buffer.getvalue())(folder)

    return inflict


def change_moment(name: str, change: Callable[[torch.Tensor], object]) -> Callable[[Path], object]:
    def inflict(tensors: dict[str, Any]) -> None:
        moments = tensors["generator_optimizer"]["state"][0]
        moments[name] = change(moments[name])

    return change_state(inflict)


def compress_state(folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(folder / "state.pt") as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    put_state(buffer.getvalue())(folder)


def put_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def flip_a_bit_of_the_manifest(folder: Path) -> None:
    """Of a digit: the number of trained images is another one."""
    path = folder / "manifest.json"
    path.write_text(
        re.sub(r'("images": )(\d)', lambda match: match[1] + str(int(match[2]) ^ 1), path.read_text(), count=1)
    )


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an empty object": write_manifest("{}"),
    "a list": write_manifest("[1]"),
    "null": write_manifest("null"),
    "an empty manifest": write_manifest(""),
    "a long number": write_manifest('{"step": ' + "9" * 5000 + "}"),
    "a folder as manifest": put_folder("manifest.json"),
    "a folder as state": put_folder("state.pt"),
    "a file as checkpoint": put_file_in_its_place,
    "no format": change_manifest(format=...),
    "format of another type": change_manifest(format=3),
    "no data hash": change_manifest(data_hash=...),
    "a text as step": change_manifest(step="x"),
    "configuration of another type": change_manifest(config=[1]),
    "configuration that none is": change_manifest(config={"training": 3}),
    "configuration of other networks": change_manifest(config={"latent_dim": 9}),
    "configuration of huge networks": change_manifest(config={"generator": {"network": "dcgan", "width": 4096}}),
    "a negative step": change_manifest(progress={"step": -1}),
    "images beyond 64 bits": change_manifest(progress={"images": 2**64}),
    "batches of 400 digits": change_manifest(progress={"batches": 10**400}),
    "updates of another type": change_manifest(progress={"discriminator_updates": [1]}),
    "a million threads": change_manifest(threads=10**6),
    "no workers": change_manifest(workers=0),
    "impossible health": change_manifest(progress={"health": {"log_sizes": {"loss/generator": 1e300}}}),
    "a state that is no archive": put_state(b"hello"),
    "a state of nothing": change_state(lambda tensors: tensors.clear()),
    "a compressed state": compress_state,
    "a state without a part": change_state(lambda tensors: tensors.pop("ema")),
    "a state with a part more": change_state(lambda tensors: tensors.update(x=torch.zeros(1))),
    "a state that is one tensor": change_state(lambda tensors: tensors.update(generator=torch.zeros(1))),
    "weights of another name": change_state(lambda tensors: tensors["generator"].update(x=torch.zeros(1))),
    "complex weights": change_state(
        lambda tensors: tensors.update(ema={name: value + 0j for name, value in tensors["ema"].items()})
    ),
    "a table in two places": change_state(lambda tensors: tensors.update(ema=tensors["generator"])),
    "tensors that share their bytes": change_state(
        lambda tensors: tensors.update(
            ema={name: value.view(value.shape) for name, value in tensors["generator"].items()}
        )
    ),
    "tensors in larger bytes": change_moment(
        "exp_avg", lambda value: torch.zeros(2 * value.numel())[: value.numel()].view(value.shape)
    ),
    "no moments": change_state(lambda tensors: tensors["generator_optimizer"]["state"].clear()),
    "moments of one parameter missing": change_state(
        lambda tensors: tensors["discriminator_optimizer"]["state"].pop(0)
    ),
    "no moments at all": change_state(lambda tensors: tensors.update(generator_optimizer={})),
    "one moment missing": change_state(lambda tensors: tensors["generator_optimizer"]["state"][0].pop("exp_avg_sq")),
    "moments that are None": change_moment("exp_avg", lambda value: None),
    "moments of another shape": change_moment("exp_avg", lambda value: value[:1].clone()),
    "moments of no elements": change_moment("exp_avg", lambda value: value[:0].clone()),
    "moments of stride 0": change_moment("exp_avg", lambda value: torch.zeros(1).expand(value.shape)),
    "moments of another dtype": change_moment("exp_avg_sq", lambda value: value.double()),
    "sparse moments": change_moment("exp_avg", lambda value: value.to_sparse()),
    "moments on no device": change_moment("exp_avg", lambda value: value.to("meta")),
    "a step of three": change_moment("step", lambda value: torch.ones(3)),
    "no manifest yet": lambda folder: (folder / "manifest.json").unlink(),
    "a cut manifest": cut_manifest,
    "no state": lambda folder: (folder / "state.pt").unlink(),
    "a state cut short": cut_state,
    "a flipped bit": flip_a_bit,
    "a flipped bit of the manifest": flip_a_bit_of_the_manifest,
}
# As an interrupted write or deletion leaves them.
UNFINISHED = {"a folder as manifest", "a file as checkpoint"}


@pytest.fixture(scope="module")
def saved(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage with a run of four steps, its checkpoints after two and four."""
    folder = tmp_path_factory.mktemp("saved")
    run(tiny_config("quickstart", data, 4, "checkpoint.every_kimg=0.032"), str(folder), "run")
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_skipped(damage: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "run" / "checkpoints", tmp_path / "run" / "checkpoints")
    DAMAGES[damage](tmp_path / "run" / "checkpoints" / checkpoint_name(4))
    store = checkpoints(str(tmp_path))
    found = store.newest()
    assert found is not None
    assert found.manifest.name == checkpoint_name(2)
    said = " ".join(found.skipped)
    assert (f"{checkpoint_name(4)}: damaged: its " in said) == (damage not in {"no manifest yet", *UNFINISHED})
    assert find_checkpoint(f"{tmp_path}/run").manifest.name == checkpoint_name(2)
    # No good checkpoint is left: nothing is begun over it.
    shutil.rmtree(tmp_path / "run" / "checkpoints" / checkpoint_name(2))
    if "damaged: its" in said:
        with pytest.raises(UserError, match=f"{checkpoint_name(4)}: damaged: .*there is no older one"):
            store.newest()


@pytest.mark.parametrize("damage", ["a cut manifest", "a folder as state", "an empty object", "moments of stride 0"])
def test_a_resume_uses_an_older_checkpoint(damage: str, data: str, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "run", tmp_path / "run")
    DAMAGES[damage](tmp_path / "run" / "checkpoints" / checkpoint_name(4))
    summary, recorder = run(tiny_config("quickstart", data, 4, "checkpoint.every_kimg=0.032"), str(tmp_path))
    assert summary.resumed_at_kimg == 2 * BATCH / 1000
    (notice,) = recorder.of(Notice)
    assert notice.text.endswith(f"; resuming from {checkpoint_name(2)}")
    assert_same_bits(newest(str(tmp_path)), newest(str(saved)))


def test_settings_of_optimizers_are_those_of_the_configuration(data: str, saved: Path, tmp_path: Path) -> None:
    """Those in the file are ignored."""
    shutil.copytree(saved / "run", tmp_path / "run")
    settings = {"lr": 9.0, "weight_decay": 1e9, "maximize": True, "betas": (0.0, 0.0)}
    change_state(lambda tensors: tensors["generator_optimizer"]["param_groups"][0].update(settings))(
        tmp_path / "run" / "checkpoints" / checkpoint_name(4)
    )
    change_state(lambda tensors: tensors["discriminator_optimizer"].update(param_groups=None))(
        tmp_path / "run" / "checkpoints" / checkpoint_name(4)
    )
    config = tiny_config("quickstart", data, 6)
    for storage in (tmp_path, saved):
        shutil.copytree(storage / "run", tmp_path / storage.name / "run")
        run(config, str(tmp_path / storage.name))
    assert_same_bits(newest(str(tmp_path / tmp_path.name)), newest(str(tmp_path / saved.name)))


def test_what_is_too_large_is_not_read(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a state that is larger than its networks need, nor an endless manifest."""
    shutil.copytree(saved / "run" / "checkpoints", tmp_path / "run" / "checkpoints")
    folder = tmp_path / "run" / "checkpoints" / checkpoint_name(4)
    change_manifest(state_bytes=10**12)(folder)
    os.truncate(folder / "state.pt", 10**12)
    read, sizes = Storage.read_bytes, []

    def note(self: Storage, name: str) -> bytes:
        sizes.append(self.size(name))
        return read(self, name)

    monkeypatch.setattr(Storage, "read_bytes", note)
    for _ in range(2):
        newest_whole = checkpoints(str(tmp_path)).newest()
        assert newest_whole is not None
        assert newest_whole.manifest.name == checkpoint_name(2)
        os.truncate(folder / "manifest.json", 10**12)
    assert max(sizes) < 10**7


def test_a_stop_replaces_an_unfinished_checkpoint(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 4)
    run(config, str(tmp_path), stop_at=1)
    run(config, str(tmp_path), stop_at=2)
    cut_state(tmp_path / "run" / "checkpoints" / checkpoint_name(2))
    summary, _ = run(config, str(tmp_path), stop_at=2)
    assert summary.reason == "interrupted"
    assert checkpoints(str(tmp_path)).newest_name() == summary.last_checkpoint == checkpoint_name(2)


# What may change between sessions, and what may not.


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("optimizer.generator.lr", "0.0008", "0.001"),
        ("generator.width", "4", "8"),
        ("seed", "0", "7"),
        ("data.window_blocks", "8", "4"),
        ("data.resize", "none", "bilinear"),
        ("data.bad_samples", "error", "skip"),
        ("objective.label_noise", "0.0", "0.1"),
        ("scale.groups", "4", "2"),
    ],
)
def test_another_recipe_is_refused(key: str, before: str, after: str, stopped: Path, data: str) -> None:
    other = tiny_config("quickstart", data, 3, f"{key}={after}")
    state = (stopped / "run" / "checkpoints" / checkpoint_name(1) / "state.pt").read_bytes()
    with pytest.raises(UserError, match=f"{key} was {before} and is {after};.*--name"):
        run(other, str(stopped))
    assert (stopped / "run" / "checkpoints" / checkpoint_name(1) / "state.pt").read_bytes() == state


@pytest.fixture(scope="module")
def stopped(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Storage with a run that was stopped after one of three steps."""
    folder = tmp_path_factory.mktemp("stopped")
    run(tiny_config("quickstart", data, 3), str(folder), stop_at=1)
    return folder


def test_other_data_are_refused(stopped: Path, tmp_path: Path) -> None:
    other = pack_bricks(tmp_path, seed=1)
    with pytest.raises(UserError, match=r"other data.*data\.url"):
        run(tiny_config("quickstart", other, 3), str(stopped))


def test_a_run_with_the_order_of_format_2_is_not_resumed(data: str, tmp_path: Path) -> None:
    """Its weights can be used."""
    config = tiny_config("quickstart", data, 3, "scale.groups=2")
    run(config, str(tmp_path), "old", stop_at=1)
    source = f"{tmp_path}/old"
    make_old(Path(source), 2)
    with pytest.raises(UserError, match=rf"{source}: .* another order; finish it with that .* --init-from {source}"):
        run(config, str(tmp_path), "old")
    with pytest.raises(UserError, match=rf"--continue-from {source}/.* another order; .* and --init-from {source}/"):
        train(RunSpec(config, "new", str(tmp_path), continue_from=source), ALONE, Recorder())
    assert sample_images(find_checkpoint(source), 2, 0).shape == (2, 1, 16, 16)
    assert train(RunSpec(config, "new", str(tmp_path), init_from=source), ALONE, Recorder()).steps == 3


@pytest.mark.parametrize("number", [2, 3])
def test_a_run_of_a_former_format_is_resumed(number: int, data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 2, "scale.groups=4", "data.streams=4")
    run(config, str(tmp_path), "whole")
    run(config, str(tmp_path), stop_at=1)
    make_old(tmp_path / "run", number)
    summary, recorder = run(config, str(tmp_path))
    assert summary.steps == 2
    (notice,) = recorder.of(Notice)
    assert notice.text.startswith(f"{checkpoint_name(1)} has the format distgan-checkpoint-{number} (critic_updates is")
    assert_same_bits(newest(str(tmp_path)), newest(str(tmp_path), "whole"))


def make_old(run_folder: Path, number: int) -> None:
    """Gives the newest checkpoint a former format."""
    path = sorted((run_folder / "checkpoints").iterdir())[-1] / "manifest.json"
    manifest = json.loads(path.read_text())
    progress, health = manifest["progress"], manifest["progress"]["health"]
    assert manifest["format"] == "distgan-checkpoint-4"
    manifest["format"] = f"distgan-checkpoint-{number}"
    progress["critic_updates"] = progress.pop("discriminator_updates")
    for old, new in {"spells": "episodes", "logs": "log_sizes", "widest": "largest_diversity"}.items():
        health[old] = health.pop(new)
    del manifest["manifest_sha256"]
    path.write_text(json.dumps(manifest))


def test_runtime_keys_may_change(data: str, stopped: Path, tmp_path: Path) -> None:
    run(tiny_config("quickstart", data, 3), str(tmp_path), "whole")
    shutil.copytree(stopped / "run", tmp_path / "run")
    shutil.copytree(data, tmp_path / "moved data")
    changed = tiny_config(
        "quickstart", str(tmp_path / "moved data"), 3, "data.memory_mb=0", "data.prefetch_batches=1",
        "training.log_every=2", "checkpoint.every_kimg=0.016", "evaluation.patience=3", "scale.workers=3",
    )  # fmt: skip
    run(changed, str(tmp_path))
    assert_same_bits(newest(str(tmp_path)), newest(str(tmp_path), "whole"))


def test_a_used_budget_ends_at_once_and_a_raised_one_resumes(data: str, tmp_path: Path) -> None:
    short, long = tiny_config("quickstart", data, 2), tiny_config("quickstart", data, 4)
    first, _ = run(short, str(tmp_path))
    again, recorder = run(short, str(tmp_path))
    assert [type(event) for event in recorder.events] == [
        PhaseStarted, RunStarted, SmallDatasetWarning, RunFinished,
    ]  # fmt: skip
    measured = short.evaluation.real_samples
    assert recorder.events[0] == PhaseStarted(f"statistics of {measured} real images")  # of 300 in the data
    assert (again.reason, again.steps, again.latest) == ("budget", 2, first.latest)
    assert again.last_checkpoint == first.last_checkpoint == checkpoint_name(2)

    raised, recorder = run(long, str(tmp_path))
    assert [event.step for event in recorder.of(StepMetrics)] == [3, 4]
    run(long, str(tmp_path), "whole")
    leaves, _ = newest(str(tmp_path))
    whole, _ = newest(str(tmp_path), "whole")
    assert_same_bits((leaves, {}), (whole, {}))
    assert raised.resumed_at_kimg == 2 * BATCH / 1000
    assert raised.run_seconds is not None
    assert raised.run_seconds > raised.seconds["total"] > raised.seconds["start"] > 0
    assert not raised.given


# What is kept.


@pytest.mark.usefixtures("every_checkpoint")
@pytest.mark.parametrize(("keep_last", "kept"), [(1, [1, 4]), (2, [1, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_the_last_and_the_best_are_kept(
    keep_last: int, kept: list[int], data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_distances(monkeypatch, 10.0, 5.0, 7.0, 6.0, 8.0)
    config = tiny_config(
        "quickstart", data, 4, "evaluation.at_start=true", "evaluation.every_kimg=0.016",
        f"checkpoint.keep_last={keep_last}",
    )  # fmt: skip
    summary, recorder = run(config, str(tmp_path))
    assert checkpoints(str(tmp_path)).names() == [checkpoint_name(step) for step in kept]
    assert (summary.best, summary.best_kimg, summary.best_checkpoint) == (5.0, BATCH / 1000, checkpoint_name(1))
    assert (summary.untrained, summary.latest, summary.last_checkpoint) == (10.0, 8.0, checkpoint_name(4))
    assert [event.improved for event in recorder.of(EvaluationResult)] == [False, True, False, False, False]
    assert [event.step for event in recorder.of(CheckpointSaved)] == [0, 1, 2, 3, 4]
    assert len(recorder.grids) == 5
    assert recorder.grids[0].shape == (64, 1, 16, 16)


def test_grids_come_at_their_interval_and_at_the_end(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_distances(monkeypatch, 10.0, 9.0, 8.0, 7.0)
    config = tiny_config(
        "quickstart", data, 7, "evaluation.at_start=true", "evaluation.every_kimg=0.048",
        "training.samples_every_kimg=0.032", "training.log_every=1",
    )  # fmt: skip
    recorder = Recorder()
    steps: list[int] = []
    monkeypatch.setattr(recorder, "samples", lambda step, *_: steps.append(step))
    train(RunSpec(config, "run", str(tmp_path)), ALONE, recorder)
    assert steps == [0, 2, 4, 6, 7]
    for event in recorder.of(StepMetrics):
        assert event.measured["memory/host_mb"] > 10
        assert 0 <= event.measured["seconds/data_wait"] < 60


def test_the_untrained_generator_is_never_the_best(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that only gets worse keeps the best trained generator, and still ends on a plateau."""
    script_distances(monkeypatch, 10.0, 30.0, 20.0, 25.0, 22.0, 99.0)
    config = tiny_config(
        "quickstart", data, 9, "evaluation.at_start=true", "evaluation.every_kimg=0.016", "evaluation.patience=2",
        "checkpoint.keep_last=1",
    )  # fmt: skip
    for stop_at in (1, 2, 3):
        run(config, str(tmp_path), stop_at=stop_at)
    summary, recorder = run(config, str(tmp_path))
    assert (summary.reason, summary.steps, summary.untrained) == ("plateau", 4, 10.0)
    assert (summary.best, summary.best_checkpoint, summary.latest) == (20.0, checkpoint_name(2), 22.0)
    assert [event.without_improvement for event in recorder.of(EvaluationResult)] == [2]
    assert checkpoints(str(tmp_path)).names() == [checkpoint_name(2), checkpoint_name(4)]
    assert find_checkpoint(f"{tmp_path}/run").manifest.name == checkpoint_name(2)


def test_a_run_without_an_evaluation_has_no_best(data: str, tmp_path: Path) -> None:
    summary, recorder = run(tiny_config("quickstart", data, 9, "evaluation.at_start=true"), str(tmp_path), stop_at=1)
    (event,) = recorder.of(EvaluationResult)
    assert (event.best, event.best_kimg, event.improved) == (None, None, False)
    assert (summary.best, summary.best_checkpoint, summary.latest) == (None, None, None)
    assert find_checkpoint(f"{tmp_path}/run").manifest.name == checkpoint_name(1)


@pytest.mark.usefixtures("every_checkpoint")
def test_checkpoints_between_evaluations(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 5, "checkpoint.every_kimg=0.032", "checkpoint.keep_last=9")
    _, recorder = run(config, str(tmp_path))
    assert [event.step for event in recorder.of(CheckpointSaved)] == [2, 4, 5]
    assert [event.step for event in recorder.of(EvaluationResult)] == [5]


def test_a_checkpoint_has_the_state_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training continues while it is written."""
    weight, moved, save = torch.zeros(3), threading.Event(), torch.save

    def late_save(*arguments: Any) -> None:
        assert moved.wait(10)
        save(*arguments)

    monkeypatch.setattr(checkpoints_module.torch, "save", late_save)
    store = checkpoints(str(tmp_path))
    manifest = Manifest(
        distgan="0",
        name=checkpoint_name(1),
        step=1,
        kimg=1.0,
        config={},
        data_hash="",
        workers=1,
        threads=1,
        progress={},
    )
    store.save(manifest, {"generator": {"weight": weight}, "moments": {0: weight}}, set(), [], 1, lambda: None)
    weight.fill_(1.0)
    moved.set()
    store.wait()
    tensors = StateFile((tmp_path / "run" / "checkpoints" / checkpoint_name(1) / "state.pt").read_bytes()).tensors()
    assert torch.equal(tensors["generator"]["weight"], torch.zeros(3))
    assert torch.equal(tensors["moments"][0], torch.zeros(3))


def flaky(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    part: str,
    failures: int,
    kind: type[UserError] = UnavailableError,
) -> list[str]:
    """`Storage.method` fails so often for names with `part` in them; returns the names it failed for."""
    real, failed = getattr(Storage, method), []

    def attempt(self: Storage, name: str, *arguments: Any) -> Any:
        if part in name and len(failed) < failures:
            failed.append(name)
            raise kind(f"{self.url}/{name}: the store is tired")
        return real(self, name, *arguments)

    monkeypatch.setattr(Storage, method, attempt)
    return failed


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("method", "part"), [("write_bytes", "state.pt"), ("write_bytes", "manifest.json"), ("delete", "step-")]
)
def test_storage_that_fails_for_a_while_is_retried(
    method: str, part: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = flaky(monkeypatch, method, part, 3)
    config = tiny_config("quickstart", data, 2, "checkpoint.every_kimg=0.016", "checkpoint.keep_last=1")
    run(config, str(tmp_path))
    assert len(failed) == 3
    assert checkpoints(str(tmp_path)).names() == [checkpoint_name(2)]
    assert newest(str(tmp_path))[1]["step"] == 2


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("kind", [UnavailableError, UserError])
def test_storage_that_stays_broken_ends_the_run(
    kind: type[UserError], data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("quickstart", data, 500, "checkpoint.every_kimg=0.016", "storage.patience_minutes=0.01")
    run(config, str(tmp_path), stop_at=1)
    failed = flaky(monkeypatch, "write_bytes", "state.pt", 10**6, kind)
    recorder = Recorder()
    with pytest.raises(UserError, match="the store is tired"):
        train(RunSpec(config, "run", str(tmp_path)), ALONE, recorder)
    # Not the whole budget was trained for nothing, and what was there is whole.
    assert max(event.step for event in recorder.of(StepMetrics)) < 500
    assert not recorder.of(RunFinished)
    assert checkpoints(str(tmp_path)).newest_name() == checkpoint_name(1)
    # What may pass is waited for, with a line; what will not is not tried again.
    assert (len(failed) > 1) == bool(recorder.of(Notice)) == (kind is UnavailableError)
