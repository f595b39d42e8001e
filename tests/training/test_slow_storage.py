"""Checkpoints on storage that is slower than they come due: training goes on, and what is needed is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from distgan.errors import UserError
from distgan.storage.storage import Storage, UnavailableError
from distgan.training.checkpoints import CheckpointStore, checkpoint_name
from distgan.training.events import CheckpointSaved, Event, Notice, StepMetrics
from distgan.training.manifest import Manifest
from distgan.training.run_spec import RunSpec
from distgan.training.state_file import StateFile
from distgan.training.train import train
from distgan.training.unsaved import unsaved_folder
from distgan.training.write_queue import WriteQueue
from runs import ALONE, Recorder, assert_same_bits, newest, run, script_distances, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


class Gate:
    """Storage that takes no state until `open` is called. `begun` has the checkpoints whose states were offered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self._opened, self._offered, self._failing = threading.Event(), threading.Event(), False
        real = Storage.write_bytes

        def write(storage: Storage, name: str, data: bytes) -> None:
            if name == "state.pt" and "/unsaved/" not in storage.url:
                self.begun.append(storage.url.rpartition("/")[2])
                self._offered.set()
                assert self._opened.wait(30)
                if self._failing:
                    raise UnavailableError(f"{storage.url}/{name}: away")
            real(storage, name, data)

        monkeypatch.setattr(Storage, "write_bytes", write)

    def wait(self) -> None:
        """Until a state is offered."""
        assert self._offered.wait(30)

    def open(self, *, failing: bool = False) -> None:
        self._failing = failing
        self._opened.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def save(store: CheckpointStore, step: int, *, required: bool = False, best: Sequence[int] = ()) -> bool:
    manifest = Manifest(
        distgan="0", name=checkpoint_name(step), step=step, kimg=1.0, config={}, data_hash="", workers=1, threads=1,
        progress={},
    )  # fmt: skip
    best_first = [checkpoint_name(one) for one in best]
    tensors = {"generator": {"weight": torch.full((3,), float(step))}}
    return store.save(manifest, tensors, set(), best_first, 9, lambda: None, required=required)


def steps(store: CheckpointStore) -> list[int]:
    return [int(name.removeprefix("step-")) for name in store.names()]


def test_the_newest_one_waits_and_no_other(gate: Gate, tmp_path: Path) -> None:
    lines: list[str] = []
    store = CheckpointStore(Storage.open(str(tmp_path)), log=lines.append)
    save(store, 1)
    gate.wait()
    assert all(save(store, step) for step in (2, 3, 4))
    assert not store.has_written(checkpoint_name(4))
    gate.open()
    store.wait()
    assert store.has_written(checkpoint_name(4))
    assert (steps(store), store.skipped) == ([1, 4], 2)
    state = StateFile((tmp_path / "checkpoints" / checkpoint_name(4) / "state.pt").read_bytes())
    assert torch.equal(state.tensors()["generator"]["weight"], torch.full((3,), 4.0))
    assert lines == [
        f"{tmp_path}/checkpoints: step-000000002 is not written: storage takes longer for one than passes between two "
        f"(checkpoint.every_kimg, checkpoint.every_minutes); training continues, and checkpoint/skipped of the metrics "
        f"counts such"
    ]


@pytest.mark.parametrize(("required", "best"), [(True, []), (False, [2])])
def test_a_required_one_and_the_best_are_not_replaced(
    required: bool, best: list[int], gate: Gate, tmp_path: Path
) -> None:
    store = CheckpointStore(Storage.open(str(tmp_path)))
    save(store, 1)
    gate.wait()
    assert save(store, 2, required=required, best=best)
    assert not save(store, 3, best=best)
    threading.Timer(0.05, gate.open).start()
    assert save(store, 4, required=True, best=best)
    store.wait()
    assert (steps(store), store.skipped) == ([1, 2, 4], 1)


def test_the_best_is_the_best_of_those_that_exist(gate: Gate, tmp_path: Path) -> None:
    """Better ones may be of a run that this one continues. A better one takes the place of the best."""
    store = CheckpointStore(Storage.open(str(tmp_path)))
    save(store, 5)
    gate.wait()
    assert save(store, 6, best=[1, 6, 5])
    assert not save(store, 7, best=[1, 6, 7, 5])
    assert save(store, 8, best=[1, 8, 6, 7, 5])
    gate.open()
    store.wait()
    assert (steps(store), store.skipped) == ([5, 8], 2)


def test_what_fails_is_kept_unless_a_newer_one_waits(gate: Gate, tmp_path: Path) -> None:
    run_storage = Storage.open(str(tmp_path))
    store = CheckpointStore(run_storage)
    save(store, 1)
    gate.wait()
    save(store, 2)
    gate.open(failing=True)
    with pytest.raises(UserError, match=r"step-000000001/state\.pt: away"):
        store.wait()
    assert [path.name for path in (unsaved_folder(run_storage) / "checkpoints").iterdir()] == [checkpoint_name(2)]
    assert store.kept is not None
    assert store.kept.startswith("the state of step 2 is in ")


def test_a_second_interrupt_drops_what_waits(gate: Gate, tmp_path: Path) -> None:
    store = CheckpointStore(Storage.open(str(tmp_path)))
    save(store, 1)
    gate.wait()
    save(store, 2, required=True)
    threading.Timer(0.05, gate.open).start()
    store.abandon()
    assert steps(store) == [1]


def on_step(step: int, action: Callable[[], None]) -> Callable[[Event], None]:
    return lambda event: action() if isinstance(event, StepMetrics) and event.step == step else None


def test_a_run_does_not_wait_for_slow_storage(
    gate: Gate, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains to its end while its first checkpoint is written, then writes its best and its last."""
    distances = (5.0, 4.0, 7.0)
    keys = ["checkpoint.every_kimg=0.016", "evaluation.every_kimg=0.064", "checkpoint.keep_last=9"]
    config = tiny_config("quickstart", data, 10, *keys)  # evaluations at steps 4, 8 and 10
    script_distances(monkeypatch, *distances)
    recorder = Recorder(on_event=on_step(10, gate.open))
    train(RunSpec(config, "run", str(tmp_path)), ALONE, recorder)
    saved = [event.step for event in recorder.of(CheckpointSaved)]
    assert saved == [1, 8, 10]
    assert [event.step for event in recorder.of(StepMetrics)] == list(range(1, 11))
    skipped = [event.terms.get("checkpoint/skipped", 0) for event in recorder.of(StepMetrics)]
    assert skipped == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert len(recorder.of(Notice)) == 1

    script_distances(monkeypatch, *distances)
    run(config, str(tmp_path), "calm")
    assert_same_bits(newest(str(tmp_path)), newest(str(tmp_path), "calm"))


def test_a_stop_writes_its_own_state_and_none_before(
    gate: Gate, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = WriteQueue.put

    def put(queue: WriteQueue, write: Any) -> None:
        real(queue, write)
        if write.name == checkpoint_name(6):
            gate.open()

    monkeypatch.setattr(WriteQueue, "put", put)
    config = tiny_config("quickstart", data, 9, "checkpoint.every_kimg=0.016", "checkpoint.keep_last=9")
    summary = train(RunSpec(config, "run", str(tmp_path)), ALONE, Recorder(stop_at=6))
    assert (summary.reason, summary.last_checkpoint) == ("interrupted", checkpoint_name(6))
    assert gate.begun == [checkpoint_name(1), checkpoint_name(6)]
    run(config, str(tmp_path))
    run(config, str(tmp_path), "calm")
    assert_same_bits(newest(str(tmp_path)), newest(str(tmp_path), "calm"))


class Announcing(Recorder):
    """Asks for the state of step 3, as where a node is preempted."""

    def save_requested(self) -> str | None:
        return "a node goes" if self.step == 3 else None


def test_an_announced_state_is_written(gate: Gate, data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 9, "checkpoint.every_kimg=0.016", "checkpoint.keep_last=9")
    recorder = Announcing(stop_at=6, on_event=on_step(6, gate.open))
    train(RunSpec(config, "run", str(tmp_path)), ALONE, recorder)
    assert "a node goes; the state of step 3 is saved" in [notice.text for notice in recorder.of(Notice)]
    assert gate.begun == [checkpoint_name(step) for step in (1, 3, 6)]
