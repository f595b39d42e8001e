"""Jobs on three Ray nodes: the same training as on one machine, to the bit; trials on several nodes; no secret told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distgan.launch.jobs.bootstrap import ENVIRONMENT_FILE
from distgan.search.record import require_record
from distgan.storage.s3_server import server
from distgan.storage.storage import Storage
from distgan.tracking.formatting import plural
from local_cluster import LocalCluster, three_nodes
from processes import TINY
from runs import assert_same_bits, newest

__all__ = ["three_nodes"]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

DATA = "s3://data/bricks"
KEYS = [f"data.url={DATA}", *TINY, "--storage", "s3://runs"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def cluster(three_nodes: LocalCluster) -> Iterator[LocalCluster]:
    """The cluster, a data set in its S3 server, and this process with its variables."""
    with pytest.MonkeyPatch.context() as patch:
        environment = three_nodes.environment()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        command = ["data", "render", "bricks", "--out", DATA, "--samples", "512", "--size", "16"]
        subprocess.run([sys.executable, "-m", "distgan", *command], check=True, timeout=60, stdout=subprocess.DEVNULL)
        yield three_nodes


# A variable that every job gets in a file, what the jobs printed, and the command lines seen meanwhile.
KEY = uuid.uuid4().hex
PRINTED: list[str] = []
SEEN: set[str] = set()


def submit(*arguments: str, cwd: Path) -> str:
    """What a job prints that the cluster runs to a good end."""
    (cwd / "job.env").write_text(f"TRACKER_API_KEY={KEY}\n")
    command = [sys.executable, "-m", "distgan", "submit", "--env-file", str(cwd / "job.env"), "--", *arguments]
    with subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            SEEN.update(command_lines())
    output = "".join(lines)
    assert process.returncode == 0, output
    PRINTED.append(output)
    return output


def command_lines() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def ask(cluster: LocalCluster, path: str) -> Any:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    with urllib.request.urlopen(urllib.request.Request(cluster.state.api + path, headers=headers), timeout=30) as reply:
        return json.load(reply)


def worker_nodes(cluster: LocalCluster) -> dict[str, list[str]]:
    """The nodes of all workers and trials that there have been, by the job they belonged to."""
    found: dict[str, list[str]] = {}
    for actor in ask(cluster, "/api/v0/actors?limit=1000&detail=1")["data"]["result"]["result"]:
        if actor["class_name"].endswith(("RayTrainWorker", "ResourceTrainable")):  # the latter is Tune's
            found.setdefault(actor["job_id"], []).append(actor["node_id"])
    return found


def test_workers_on_two_nodes_train_the_same_to_the_bit(cluster: LocalCluster, tmp_path: Path) -> None:
    before = worker_nodes(cluster)
    # By default a worker has as many threads as its node offers Ray processors.
    processors = max(1, len(os.sched_getaffinity(0)) // len(cluster.state.nodes))
    spread = ["--workers", "2", "placement.strategy=strict_spread", "scale.threads=null"]
    output = submit("train", "quickstart", *KEYS, *spread, "--name", "nodes", cwd=tmp_path)
    assert "image budget reached" in output
    (nodes,) = (nodes for job, nodes in worker_nodes(cluster).items() if job not in before)
    assert len(nodes) == len(set(nodes)) == 2
    assert f", {plural(processors, 'thread')} each, " in output
    own = [f"scale.threads={processors}", "--no-ray", "--name", "here"]
    here = [*TORCHRUN, "-m", "distgan", "train", "quickstart", *KEYS, *own]
    subprocess.run([sys.executable, *here], cwd=tmp_path, check=True, timeout=200, stdout=subprocess.DEVNULL)
    assert json.loads(Storage.open("s3://runs/here").read_bytes("summary.json"))["workers"] == 2
    assert_same_bits(newest("s3://runs", "nodes"), newest("s3://runs", "here"))


def test_trials_run_on_several_nodes(cluster: LocalCluster, tmp_path: Path) -> None:
    before = worker_nodes(cluster)
    space = ["--space", "optimizer.generator.lr=choice(2e-4, 4e-4, 8e-4)", "--scheduler", "none", "--trials", "2"]
    # Two workers of that size do not fit on a node.
    beside = ["--concurrent", "2", "--cpus-per-worker", "0.9"]
    submit("tune", "quickstart", *KEYS, "training.kimg=1", *space, *beside, "--name", "search", cwd=tmp_path)
    record = require_record("s3://runs/search")
    assert [trial.state for trial in record.trials] == ["budget", "budget"]
    (nodes,) = (nodes for job, nodes in worker_nodes(cluster).items() if job not in before)
    assert len(set(nodes)) == 2


def test_no_secret_is_told(cluster: LocalCluster, tmp_path: Path) -> None:
    """Not in what a run keeps, what Ray logs and shows of jobs, or a list of processes."""
    store = server.status(cluster.directory / "store")
    assert store is not None
    secrets = {"token": cluster.token, "S3 secret": store.secret_key, "tracker's key": KEY}
    if not PRINTED:
        submit("train", "quickstart", *KEYS, "training.kimg=0.5", "--workers", "2", "--name", "nodes", cwd=tmp_path)
    files = Storage.open("s3://runs").fs
    told = {path: files.cat_file(path) for path in files.find("runs")}
    names = {Path(path).name for path in told if path.startswith("runs/nodes/")}
    assert {"config.yaml", "metrics.jsonl", "summary.json"} <= names
    logs = [path for path in cluster.state.sessions.rglob("*") if path.is_file() and not path.is_symlink()]
    # The environment file itself is shipped, as a package that Ray unpacks for the job's processes.
    shipped = [path for path in logs if path.name == ENVIRONMENT_FILE]
    assert shipped
    assert all("runtime_resources" in path.parts and path.stat().st_mode & 0o077 == 0 for path in shipped)
    logs = [path for path in logs if path not in shipped]
    assert any(path.name.startswith("job-driver-") for path in logs)
    told |= {str(path): path.read_bytes() for path in logs}
    told["output"] = "".join(PRINTED).encode()
    told["jobs"] = json.dumps([ask(cluster, "/api/jobs/"), ask(cluster, "/api/v0/jobs?detail=1")]).encode()
    told["actors"] = json.dumps(ask(cluster, "/api/v0/actors?limit=1000&detail=1")).encode()
    told |= {f"process {line[:80]!r}": line.encode() for line in SEEN | command_lines()}
    assert any("ray.scripts.scripts" in line and "start" in line for line in SEEN)
    found = [f"{name} in {where}" for where, text in told.items() for name, secret in secrets.items()
             if secret.encode() in text]  # fmt: skip
    assert not found
