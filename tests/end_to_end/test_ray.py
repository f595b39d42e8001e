"""The whole job through the command line: Ray Train, two workers, a real S3 server, killed and resumed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from command_line import Cli
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from distgan.training.starting_point import find_checkpoint
from processes import TINY, finish, listening, our_processes, start, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(420)]

DATA_SAMPLES = 512


def distgan(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return start("-m", "distgan", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def data(object_store: object) -> str:
    url = "s3://test-ray-data/bricks"
    Storage.open(url).ensure()
    command = ["data", "render", "bricks", "--out", url, "--samples", str(DATA_SAMPLES), "--size", "16"]
    subprocess.run([sys.executable, "-m", "distgan", *command], check=True, timeout=60)
    return url


def state_tensors(run: Storage, name: str) -> dict[str, object]:
    return find_checkpoint(f"{run.url}/checkpoints/{name}").tensors


def assert_same_bits(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    elif isinstance(one, dict):
        assert one.keys() == other.keys()  # type: ignore[attr-defined]
        for key in one:
            assert_same_bits(one[key], other[key])  # type: ignore[index]
    else:
        assert one == other


@pytest.mark.slow
def test_killed_and_resumed_job_ends_with_the_same_bits(data: str, bucket: str, tmp_path: Path) -> None:
    """As a job of torchrun's that nobody disturbs."""
    before = our_processes()
    command = ["train", "quickstart", f"data.url={data}", *TINY, "--storage", bucket]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    whole = Storage.open(bucket).child("whole")
    output = finish(start(*launcher, "-m", "distgan", *command, "--no-ray", "--name", "whole", cwd=tmp_path))
    assert "image budget reached" in output, output
    command = [*command, "--workers", "2", "--name", "broken"]

    # SIGTERM to every process, those of Ray too, as systemd and Slurm send it, which are more than the group that
    # `timeout` and a closed terminal reach: the state is saved, there is a summary, the exit code says so, no process
    # stays. Ray's own handlers would end the command, or the cluster below it.
    broken = Storage.open(bucket).child("broken")
    kept = {
        "checkpoints",
        "config.yaml",
        "curves.png",
        "metrics.jsonl",
        "reals.png",
        "samples",
        "summary.json",
        "tensorboard",
    }
    process = distgan(*command, cwd=tmp_path)
    wait_for(lambda: any(name >= "step-000000016" for name in broken.child("checkpoints").list()))
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGTERM)
    output = finish(process)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.rstrip().endswith(f"run: {broken.url}"), output
    assert "the state is saved first" in output
    assert "interrupted, state saved" in output
    assert "SIGTERM received" not in output
    assert json.loads(broken.read_bytes("summary.json"))["reason"] == "interrupted"
    newest = CheckpointStore(broken).newest_manifest()
    assert newest is not None
    assert newest.step == trained_steps(broken)[-1]
    assert set(broken.list()) == kept
    assert our_processes() == before

    # The same command goes on; a worker is killed on the way, and Ray Train starts the group again.
    process = distgan(*command, cwd=tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "2 workers on cpu" in line:
            break
    found = listening(process.pid)
    assert any("RayTrainWorker" in command for _, command in found), found
    assert {address for address, _ in found} == {"127.0.0.1"}, found
    commands = [" ".join(one.cmdline()) for one in psutil.Process(process.pid).children(recursive=True)]
    sessions = {Path(match[1]) for command in commands if (match := re.search(r"--session-dir=(\S+)", command))}
    assert sessions
    assert all(stat.S_IMODE(session.parents[1].stat().st_mode) == 0o700 for session in sessions), sessions
    assert not any("DatasetManager" in command or "PlacementGroupCleaner" in command for command in commands), commands
    # Ray's own processes know this cluster's head: a file of /tmp names that of the last `ray start`.
    heads = {match[1] for command in commands if (match := re.search(r"--gcs-address=(\S+)", command))}
    assert heads
    assert {process.environ().get("RAY_ADDRESS") for process in workers_of(before)} == heads
    os.kill(workers_of(before)[0].pid, signal.SIGKILL)
    output = finish(process)
    assert process.returncode == 0, output
    assert "image budget reached" in output, output
    assert our_processes() == before
    assert set(broken.list()) == kept
    summary = json.loads(broken.read_bytes("summary.json"))
    assert summary["kimg"] == pytest.approx(2.016)
    assert summary["workers"] == 2
    assert summary["floor"] > 0
    lost, rest = summary["attempts"]
    assert (lost["workers"], rest["workers"], rest["failure"]) == (2, 2, None)
    assert re.fullmatch(r"worker [01] on 127\.0\.0\.1: its process died", lost["failure"])
    assert f"warning: {lost['failure']}; restart 1 of 3 without a new checkpoint, from " in output

    last = summary["last_checkpoint"]
    assert_same_bits(state_tensors(whole, last), state_tensors(broken, last))
    trained = trained_steps(broken)
    assert trained == sorted(set(trained))


def trained_steps(run: Storage) -> list[int]:
    """The logged steps, in the order in which they were written."""
    rows = map(json.loads, run.read_bytes("metrics.jsonl").splitlines())
    return [row["step"] for row in rows if row["event"] == "step"]


def workers_of(before: dict[int, str]) -> list[psutil.Process]:
    """Training workers that have begun since."""
    processes = [psutil.Process(pid) for pid in our_processes().keys() - before.keys()]
    return [process for process in processes if any("RayTrainWorker" in word for word in process.cmdline())]


@pytest.mark.slow
def test_two_workers_evaluate_as_one_does_and_leave_nothing(data: str, bucket: str, tmp_path: Path, cli: Cli) -> None:
    before = our_processes()
    train = ["train", "quickstart", f"data.url={data}", *TINY, "training.kimg=0.1", "--no-ray", "--storage", bucket]
    assert cli(*train, "--name", "run").code == 0
    command = ["evaluate", f"{bucket}/run", "--metrics", "frechet,kid", "--json"]
    one_worker = cli(*command, "one.json", "--workers", "1")
    assert one_worker.code == 0, one_worker
    assert "1 worker on cpu" in one_worker.out + one_worker.err
    process = distgan(*command, "two.json", "--workers", "2", cwd=tmp_path)
    output = finish(process)
    assert process.returncode == 0, output
    assert "2 workers on cpu" in output
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
    assert (one["workers"], two["workers"]) == (1, 2)
    assert our_processes() == before

    # Ctrl-C ends it at once. Of more samples than can be drawn meanwhile.
    process = distgan(*command, "more.json", "--workers", "2", "--samples", "1000000", cwd=tmp_path)
    assert process.stdout is not None
    assert any("starting 2 workers" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not (tmp_path / "more.json").exists()
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)


@pytest.mark.slow
def test_an_address_where_nothing_listens_is_one_line(data: str, bucket: str, tmp_path: Path) -> None:
    command = ["train", "quickstart", f"data.url={data}", *TINY, "--workers", "1", "--storage", bucket]
    process = distgan(*command, "--address", "127.0.0.1:1", cwd=tmp_path)
    output = finish(process)
    assert process.returncode == 2, output
    assert "distgan: error: Ray at 127.0.0.1:1: nothing answers" in output
    assert "Traceback" not in output


def evaluators_of(before: dict[int, str]) -> list[int]:
    """Processes that have begun since, and evaluate a checkpoint."""
    return [pid for pid, title in our_processes().items() if pid not in before and "evaluate_checkpoint" in title]


@pytest.mark.slow
def test_evaluations_beside_the_training_find_what_those_within_it_do(
    data: str, bucket: str, tmp_path: Path, cli: Cli
) -> None:
    """The same weights to the bit, and the same values: on Ray beside the training, without Ray within it.

    Also where the process that evaluates is killed.
    """
    before = our_processes()
    command = ["train", "quickstart", f"data.url={data}", *TINY, "--workers", "1", "--storage", bucket]
    keys = ["evaluation.every_kimg=0.5", "evaluation.metrics=[recall]"]
    process = distgan(*command, *keys, "evaluation.asynchronous=true", "--name", "beside", cwd=tmp_path)
    wait_for(lambda: bool(evaluators_of(before)))
    os.kill(evaluators_of(before)[0], signal.SIGKILL)
    output = finish(process)
    assert "image budget reached" in output, output
    assert "the evaluation of checkpoint step-000000000 was lost: its process died; restart 1 of 3" in output, output
    assert "Traceback" not in output
    within_it = cli(*command, *keys, "--no-ray", "--name", "within")
    assert within_it.code == 0, within_it
    assert our_processes() == before

    beside, within = (Storage.open(bucket).child(name) for name in ("beside", "within"))
    last = json.loads(within.read_bytes("summary.json"))["last_checkpoint"]
    assert_same_bits(state_tensors(beside, last), state_tensors(within, last))
    found, wanted = (
        [row for row in map(json.loads, run.read_bytes("metrics.jsonl").splitlines()) if row["event"] == "evaluation"]
        for run in (beside, within)
    )
    assert [row["step"] for row in found] == [row["step"] for row in wanted] == [0, 16, 32, 47, 63]
    assert [row["reported_step"] for row in found] == [16, 32, 47, 63, 63]
    for one, other in zip(found, wanted, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-6)
        assert one["recall_lite0_64"] == pytest.approx(other["recall_lite0_64"], abs=1e-6)
