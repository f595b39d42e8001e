"""A notice of a preemption has the state saved at once, and once more shortly before the node goes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.train import PreemptionInfo

from distgan.distributed import Distributed
from distgan.launch import ray_internals
from distgan.launch.preemption import Preemption, PreemptionSaves
from distgan.training import loop
from distgan.training.events import CheckpointSaved, Notice
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from gloo import run_workers
from runs import Recorder, tiny_config

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"5f": "10.0.0.2", "6a": "10.0.0.3"}
    known = [{"NodeID": node, "NodeManagerAddress": address} for node, address in addresses.items()]
    monkeypatch.setattr(ray, "nodes", lambda: known)


def test_the_notice_is_read_without_a_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SimpleNamespace(preemption_context=SimpleNamespace(preemption_info=None))
    monkeypatch.setattr(ray_internals.context, "get_train_context", lambda: worker)
    assert ray_internals.preemption_notice() is None
    worker.preemption_context.preemption_info = PreemptionInfo(1500, {"5f": [1, 3]})
    assert ray_internals.preemption_notice() == Preemption(1.5, {"5f": (1, 3)})


def test_each_node_is_told_once() -> None:
    notices = [None, Preemption(None, {"5f": (1,)}), Preemption(1040.0, {"5f": (1,), "6a": (2, 3)})]
    saves = PreemptionSaves(lambda: notices[0], now=lambda: 1000.0)
    told = []
    while notices:
        told += [saves.take(), saves.take()]
        notices.pop(0)
    assert told == [
        None, None,
        "node 10.0.0.2 (worker 1) will be preempted", None,
        "node 10.0.0.2 (worker 1), node 10.0.0.3 (workers 2, 3) will be preempted in 40 s", None,
    ]  # fmt: skip


def test_a_late_deadline_has_a_second_checkpoint() -> None:
    now = [1000.0]
    saves = PreemptionSaves(lambda: Preemption(1120.0, {"5f": (1,)}), now=lambda: now[0])
    told = []
    for now[0] in (1000.0, 1089.0, 1090.0, 1091.0, 1130.0):
        told.append(saves.take())
    assert told == [
        "node 10.0.0.2 (worker 1) will be preempted in 2 min", None,
        "node 10.0.0.2 (worker 1) will be preempted in 30 s", None, None,
    ]  # fmt: skip


class Asking(Recorder):
    """Asks for a checkpoint when it is asked for the third time."""

    asked = 0

    def save_requested(self) -> str | None:
        self.asked += 1
        return "a node goes" if self.asked == 3 else None


def train_asking(distributed: Distributed, data: str, folder: str) -> tuple[list[str], list[int]]:
    """The notices and the steps of checkpoints. Rank 0 looks at steps 4, 8, and from the first row on at every one."""
    loop._AGREE_S = 1e-9
    recorder = Asking()
    spec = RunSpec(tiny_config("quickstart", data, 10, "training.log_every=4"), "run", folder)
    train(spec, distributed, recorder)
    return [event.text for event in recorder.of(Notice)], [event.step for event in recorder.of(CheckpointSaved)]


@pytest.mark.parametrize("size", [1, 2])
def test_all_ranks_save_when_rank_0_is_asked(size: int, data: str, tmp_path: Path) -> None:
    found = run_workers(train_asking, size, data, str(tmp_path))
    assert found[0] == (["a node goes; the state of step 6 is saved"], [6, 10])
    assert found[1:] == [([], [])] * (size - 1)
