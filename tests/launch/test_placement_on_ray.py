"""Workers on a real Ray cluster of two nodes with labels: they go where the configuration says."""

from __future__ import annotations

import itertools
import json
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgan.launch.placement.network import interface_of
from processes import TINY, finish, kill_ray_nodes, our_processes, ray_node, start
from runs import assert_same_bits, newest

# Tells the cluster at an address that a node is preempted 15 s later, as a cloud's agent does.
PREEMPT = """
import sys, time, ray
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
ray.init(sys.argv[1], log_to_driver=False)
(node,) = [node["NodeID"] for node in ray.nodes() if node["NodeManagerAddress"] == sys.argv[2]]
reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
GcsClient(address=sys.argv[1]).drain_node(node, reason, "reclaimed", int(1000 * (time.time() + 15)))
"""

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

DRIVER = Path(__file__).parents[1] / "helpers" / "placed_workers.py"
HEAD, SPOT = "127.0.0.1:6396", "127.0.0.2"


@pytest.fixture(scope="module")
def labeled_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray cluster whose second node is a spot one with bricks and an accelerator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield from _labeled_nodes(tmp_path_factory.mktemp("nodes"))


def _labeled_nodes(folder: Path) -> Iterator[str]:
    before = our_processes()
    common = ["--block", "--num-cpus", "2", "--object-store-memory", "100000000"]
    head_options = ["--head", "--port", "6396", "--dashboard-host", "127.0.0.1"]
    head_options += ["--dashboard-port", "8396", "--labels", "ray.io/market-type=on-demand"]
    resources = json.dumps({"brick": 2, "accelerator_type:H100": 1})
    options = ["--address", HEAD, "--node-ip-address", SPOT, "--resources", resources]
    nodes = [ray_node("start", *head_options, *common, cwd=folder)]
    try:
        nodes.append(ray_node("start", *options, "--labels", "ray.io/market-type=spot", *common, cwd=folder))
        yield HEAD
    finally:
        kill_ray_nodes(nodes, before)


def test_workers_go_where_the_configuration_says(
    labeled_nodes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DRIVER.parents[2]))
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(variable, raising=False)
    process = start(str(DRIVER), labeled_nodes, cwd=tmp_path)
    output = finish(process, 250)
    assert process.returncode == 0, output
    answer = json.loads(next(line for line in output.splitlines() if line.startswith("ANSWER")).removeprefix("ANSWER"))
    places = {name: [worker["address"] for worker in workers] for name, workers in answer["workers"].items()}
    assert places["spot"] == places["custom"] == [SPOT, SPOT]
    staying = next(address for address in places["not spot"])
    assert staying != SPOT
    assert places["not spot"] == [staying, staying]
    assert sorted(places["no such label"]) == sorted([staying, SPOT])
    for worker in itertools.chain(*answer["workers"].values()):
        assert worker["sum"] == 2
        assert worker["interface"] == interface_of(worker["address"]), "all nodes are on this machine"
    assert answer["trials"] == [staying] * 10, "trials live longer than spot nodes"
    assert answer["refused"].startswith("placement.interface=nic9: is not there on ")


SOURCE = """
import os
from pathlib import Path
import numpy as np
from distgan.data.sources.base import Source

class Noted(Source):
    # Notes in a folder which processes read images; with `private` it is only readable where it was opened.
    def __init__(self, path: str, private: bool = False):
        self._folder, self._opener = path, os.getpid() if private else None

    def __len__(self):
        return 300

    def __getitem__(self, number):
        if self._opener not in {None, os.getpid()}:
            raise FileNotFoundError("on another machine")
        (Path(self._folder) / str(os.getpid())).touch()
        return np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8), -1
"""


def test_nodes_pack_the_same_bytes(labeled_nodes: str, tmp_path: Path) -> None:
    (tmp_path / "noted.py").write_text(SOURCE)
    sent, readers, packed = {}, {}, []
    for name, address in {"here": "local", "nodes": labeled_nodes, "private": labeled_nodes}.items():
        (tmp_path / f"read {name}").mkdir()
        options = ["--size", "16", "--format", "noted:Noted", "--option", f"private={name == 'private'}"]
        source = ["data", "pack", str(tmp_path / f"read {name}"), "--out", name, *options]
        process = start("-m", "distgan", *source, "--address", address, cwd=tmp_path)
        output = finish(process)
        assert process.returncode == 0, output
        packed.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
        readers[name] = len(list((tmp_path / f"read {name}").iterdir()))
        sent[name] = "this machine reads it and sends the images" in output
    assert packed[0] == packed[1] == packed[2]
    assert sent == {"here": False, "nodes": False, "private": True}
    assert readers["nodes"] > 1
    assert readers["private"] == 1


def test_a_run_spread_over_two_nodes_has_the_bits_of_one_here(labeled_nodes: str, data: str, tmp_path: Path) -> None:
    command = ["train", "quickstart", f"data.url={data}", *TINY, "training.kimg=0.5", "--workers", "2", "--name"]
    spread = ["--address", labeled_nodes, "placement.strategy=strict_spread"]
    output = finish(start("-m", "distgan", *command, "spread", *spread, cwd=tmp_path))
    assert "image budget reached" in output, output
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    output = finish(start(*launcher, "-m", "distgan", *command, "here", "--no-ray", cwd=tmp_path))
    assert "image budget reached" in output, output
    runs = str(tmp_path / "runs")
    assert_same_bits(newest(runs, "spread"), newest(runs, "here"))

    refused = start("-m", "distgan", *command, "refused", *spread, "placement.labels=[zone=a]", cwd=tmp_path)
    output = finish(refused)
    assert refused.returncode == 2, output
    assert "error: the Ray cluster has no place for 2 workers with 1 CPU each: no node has the labels zone=a" in output


def test_a_run_waits_for_a_node_and_ctrl_c_ends_the_wait(labeled_nodes: str, data: str, tmp_path: Path) -> None:
    keys = [*TINY, "training.kimg=0.1", "placement.labels=[zone=a]", "placement.wait=true"]
    command = ["train", "quickstart", f"data.url={data}", *keys, "--address", labeled_nodes]

    def waiting() -> subprocess.Popen[str]:
        process = start("-m", "distgan", *command, cwd=tmp_path)
        assert process.stdout is not None
        assert any("waiting for nodes: " in line and "the labels zone=a" in line for line in process.stdout)
        return process

    process = waiting()
    process.send_signal(signal.SIGINT)
    output = finish(process, 60)
    assert process.returncode == 130, output
    process = waiting()
    options = ["--address", labeled_nodes, "--node-ip-address", "127.0.0.3", "--labels", "zone=a"]
    late = ray_node("start", *options, "--block", "--num-cpus", "1", "--object-store-memory", "100000000", cwd=tmp_path)
    try:
        output = finish(process, 150)
        assert "image budget reached" in output, output
    finally:
        process.kill()
        late.kill()
        finish(late, 60)


def test_a_preempted_node_loses_only_steps_after_the_notice(
    labeled_nodes: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one: the node stays away from then on."""
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.5")
    keys = [*TINY, "training.kimg=10000", "evaluation.every_kimg=10000", "checkpoint.every_kimg=null"]
    spread = ["--workers", "2", "placement.strategy=strict_spread", "scale.max_failures=0"]
    command = ["train", "quickstart", f"data.url={data}", *keys, *spread, "--address", labeled_nodes]
    process = start("-m", "distgan", *command, "--name", "preempted", cwd=tmp_path)
    assert process.stdout is not None
    told: list[str] = []

    def until(text: str) -> str:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line)
            if text in line:
                return line
        raise AssertionError("".join(told))

    options = ["--address", labeled_nodes, "--node-ip-address", "127.0.0.3"]
    late = None
    try:
        until("2 workers on cpu")
        late = ray_node(
            "start", *options, "--block", "--num-cpus", "1", "--object-store-memory", "100000000", cwd=tmp_path
        )
        finish(start("-c", PREEMPT, labeled_nodes, SPOT, cwd=tmp_path), 60)
        notice = r"node 127\.0\.0\.2 \(worker [01]\) will be preempted in \d+ s; the state of step ([\d,]+) is saved"
        saved = re.search(notice, until("will be preempted"))
        assert saved is not None, told
        step = int(saved[1].replace(",", ""))
        lost = until("was preempted")
        assert re.search(r"node 127\.0\.0\.2 \(worker [01]\) was preempted; restarting, from \S+ kimg", lost), lost
        until("2 workers on cpu")
        until(" images/s")
        process.send_signal(signal.SIGINT)
        told.append(finish(process, 120))
    finally:
        process.kill()
        if late is not None:
            late.kill()
            finish(late, 60)
    assert process.returncode == 130, told
    run = tmp_path / "runs" / "preempted"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["event"] == "checkpoint"][:2] == [0, step]
    trained = [row["step"] for row in rows if row["event"] == "step"]
    assert trained == list(range(1, trained[-1] + 1))
    attempts = json.loads((run / "summary.json").read_text())["attempts"]
    assert [attempt["failure"] is None for attempt in attempts] == [False, True]
    assert attempts[1]["kimg"] == pytest.approx(0.032 * step)
