"""`distgan doctor` on a Ray cluster of two nodes, whose second one has a wrong secret, then hangs, then is killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distgan.storage.storage import Storage
from processes import finish, our_processes, start, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

# 127.0.0.1 itself Ray would replace by another address of the machine.
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
GCS, API = 6393, 8393
IMPATIENT = """
import sys
from distgan.cli import main
from distgan.doctor.ray import nodes
nodes._MACHINE_S = 15.0
sys.argv = ["distgan", *sys.argv[1:]]
main.main()
"""


class Cluster(NamedTuple):
    """The second node's process, and its wrong AWS secret."""

    other: subprocess.Popen[str]
    planted: str


@pytest.fixture
def two_nodes(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with a token; the second node's credentials are wrong."""
    planted = f"planted-{secrets.token_hex(16)}"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = our_processes()
    common = ["--block", "--num-cpus", "1", "--object-store-memory", "100000000"]
    dashboard = [f"--dashboard-host={HEAD}", f"--dashboard-port={API}"]
    head = node("--head", f"--node-ip-address={HEAD}", f"--port={GCS}", *dashboard, *common, cwd=tmp_path)
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", planted)
        other = node(f"--address={HEAD}:{GCS}", f"--node-ip-address={OTHER}", *common, cwd=tmp_path)
    yield Cluster(other, planted)
    for process in (other, head):
        process.send_signal(signal.SIGTERM)
        finish(process, 60)
    for pid in our_processes().keys() - before.keys():
        os.kill(pid, signal.SIGKILL)


def node(*options: str, cwd: Path) -> subprocess.Popen[str]:
    """`ray start` with these options, once its node runs."""
    process = start("-m", "ray.scripts.scripts", "start", *options, cwd=cwd)
    assert process.stdout is not None
    assert any("Process exit logs" in line for line in process.stdout)
    return process


def alive() -> set[str]:
    headers = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    request = urllib.request.Request(f"http://{HEAD}:{API}/nodes?view=summary", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        summary = json.load(reply)["data"]["summary"]
    return {one["ip"] for one in summary if one["raylet"].get("state") == "ALIVE"}


def doctor(cwd: Path, *arguments: str, program: tuple[str, ...] = ("-m", "distgan")) -> tuple[int, str, Any]:
    """Exit code, output, and the JSON report."""
    command = [*program, "doctor", "--address", f"{HEAD}:{GCS}", "--json", "doctor.json", *arguments]
    process = start(*command, cwd=cwd)
    output = finish(process, 200)
    assert "Traceback" not in output, output
    return process.returncode, output, json.loads((cwd / "doctor.json").read_text())


def test_a_cluster_of_two_nodes(data: str, bucket: str, two_nodes: Cluster, tmp_path: Path) -> None:
    code, output, report = doctor(tmp_path, "--data", data, "--storage", f"{bucket}/runs")
    assert code == 1, output
    assert report["ok"] is False
    head, other = report["nodes"]
    assert (head["address"], head["head"], other["address"]) == (HEAD, True, OTHER)
    assert "the secret key is wrong" in other["storage"]["problem"]
    fails = [(one["check"], one["where"]) for one in report["findings"] if one["level"] == "fail"]
    assert fails == [("storage", OTHER)]
    for shown in (f"{HEAD} (head)", OTHER, "the secret key is wrong", "images/s", "all-reduce by gloo"):
        assert shown in output
    assert head["storage"]["sees_mark"] is True
    assert Storage.open(f"{bucket}/runs").list() == []

    assert report["all_reduce"]["workers"] == [HEAD, OTHER]
    assert [one["bytes"] for one in report["all_reduce"]["timings"]] == [4, 2**20, 2**24]
    for one in (head, other):
        assert one["data"]["images"] > 0
        assert one["interface"] == "lo"
        assert abs(one["clock"]["ahead"]) <= one["clock"]["uncertainty"] + 0.01  # it is one clock
        assert one["machine"]["versions"]["ray"] == report["driver"]["versions"]["ray"]
        assert one["object_store_seconds"] > 0
        assert one["credentials"] == "env"
    everything = output + json.dumps(report)
    for secret in (two_nodes.planted, os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["RAY_AUTH_TOKEN"]):
        assert secret not in everything

    os.killpg(two_nodes.other.pid, signal.SIGSTOP)
    try:
        code, output, report = doctor(tmp_path, program=("-c", IMPATIENT))
    finally:
        os.killpg(two_nodes.other.pid, signal.SIGCONT)
    assert code == 1, output
    problem = next(one["problem"] for one in report["nodes"] if one["address"] == OTHER)
    assert "no answer within 15 s" in problem
    assert report["all_reduce"]["workers"] == [HEAD, HEAD]

    os.killpg(two_nodes.other.pid, signal.SIGKILL)
    wait_for(lambda: alive() == {HEAD})
    code, output, report = doctor(tmp_path)
    assert code == 0, output
    assert [(one["level"], one["where"]) for one in report["findings"] if one["check"] == "node"] == [("warn", OTHER)]
    assert "dead" in output
