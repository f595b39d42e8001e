"""Searches through the command line: real Ray Tune and Train, a real S3 server, drivers and nodes that are killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Cli
from distgan.search.record import SearchRecord, Trial, require_record
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from distgan.training.starting_point import find_checkpoint
from processes import TINY, finish, kill_ray_nodes, our_processes, ray_node, start, wait_for
from runs import assert_same_bits, newest, tensors_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SEARCH = [
    *TINY, "evaluation.every_kimg=0.5", "checkpoint.every_kimg=null",
]  # fmt: skip
SPACE = ["--space", "optimizer.generator.lr=choice(2e-4, 4e-4, 8e-4)"]


@pytest.fixture(scope="module")
def data(object_store: object) -> str:
    url = "s3://test-tune-data/bricks"
    Storage.open(url).ensure()
    command = ["data", "render", "bricks", "--out", url, "--samples", "512", "--size", "16"]
    subprocess.run([sys.executable, "-m", "distgan", *command], check=True, timeout=60)
    return url


def tune(data: str, storage: str, *more: str, cwd: Path) -> subprocess.Popen[str]:
    return start(
        "-m", "distgan", "tune", "quickstart", f"data.url={data}", *SEARCH, "--storage", storage, *more, cwd=cwd
    )


def trained_kimg(search: str, trial: Trial) -> list[float]:
    """Of each row of a trial's training, in the order in which they were written."""
    rows = Storage.open(search).child("trials").child(trial.name).read_bytes("metrics.jsonl").splitlines()
    return [row["kimg"] for row in map(json.loads, rows) if row["event"] == "step"]


def evaluations(record: SearchRecord) -> int:
    return sum(len(trial.curve) for trial in record.trials)


def test_a_killed_search_goes_on_and_its_winner_can_be_trained_anew(
    data: str, bucket: str, tmp_path: Path, cli: Cli
) -> None:
    before = our_processes()
    search = f"{bucket}/search"
    command = [
        *SPACE,
        "--name",
        "search",
        "--scheduler",
        "none",
        "--trials",
        "2",
        "--concurrent",
        "1",
        "training.kimg=4",
    ]
    process = tune(data, bucket, *command, cwd=tmp_path)
    assert process.stdout is not None
    # Killed once one trial has ended and the other one has begun and was evaluated.
    ended = False
    for line in process.stdout:
        ended = ended or " ended: done" in line
        if ended and " kimg: fd_lite0" in line:
            break
    process.send_signal(signal.SIGKILL)
    finish(process)
    killed = require_record(search)
    finished = [trial for trial in killed.trials if trial.ended]
    assert finished
    kept = {trial.number: trained_kimg(search, trial) for trial in finished}

    # Ctrl-C: trials save their state before they end.
    process = tune(data, bucket, *command, cwd=tmp_path)
    assert process.stdout is not None
    assert any(" kimg: fd_lite0" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    interrupted = require_record(search)
    assert interrupted.ended == "interrupted"
    going = [trial for trial in interrupted.trials if trial.state == "begun" and trial.curve]
    runs = Storage.open(search).child("trials")
    manifests = {trial.number: CheckpointStore(runs.child(trial.name)).newest_manifest() for trial in going}
    assert any(
        manifest is not None and manifest.kimg == trained_kimg(search, interrupted.trials[number])[-1]
        for number, manifest in manifests.items()
    )

    output = finish(tune(data, bucket, *command, cwd=tmp_path), 400)
    assert "all trials ended" in output, output
    assert "Traceback" not in output
    record = require_record(search)
    assert record.ended == "all trials ended"
    assert [trial.state for trial in record.trials] == ["budget"] * 2
    assert {number: trained_kimg(search, record.trials[number]) for number in kept} == kept
    for trial in record.trials:
        # Nothing was trained twice that had been evaluated, and every evaluation is there once.
        assert [kimg for kimg, _ in trial.curve] == pytest.approx([0.512, 1.024, 1.504, 2.016, 2.528, 3.008, 3.52, 4.0])
        assert trained_kimg(search, trial) == sorted(set(trained_kimg(search, trial)))
        assert set(Storage.open(search).child("trials").child(trial.name).list()) >= {"checkpoints", "summary.json"}
    files = {"best.yaml", "curves.png", "keys.png", "leaderboard.csv", "parallel.png", "search.json", "trials"}
    assert set(Storage.open(search).list()) == files
    # Of a killed driver Ray's agents stay for a minute.
    wait_for(lambda: our_processes().keys() <= before.keys())

    # A trial in Tune's actor is the run that Ray Train makes of its configuration, to the bit.
    best = min(record.trials, key=lambda trial: min(value for _, value in trial.curve))
    alone = ["train", f"{search}/best.yaml", "--storage", bucket, "--name", "alone"]
    finish(start("-m", "distgan", *alone, cwd=tmp_path))
    assert_same_bits(newest(bucket, "alone"), newest(f"{search}/trials", best.name))

    # And the winner goes on from its own state.
    longer = cli(
        "train", "--from-trial", search, "training.kimg=4.2", "--no-ray", "--storage", bucket, "--name", "longer"
    )
    assert "4.2 kimg" in longer.out + longer.err, longer
    manifest = CheckpointStore(Storage.open(bucket).child("longer")).newest_manifest()
    assert manifest is not None
    assert f"search/trials/{best.name}/checkpoints/" in str(manifest.continued_from)


def test_bad_trials_are_stopped_and_free_their_workers(data: str, bucket: str, tmp_path: Path) -> None:
    """More trials than fit at once: where a stopped one kept its workers, the next would wait for ever."""
    before = our_processes()
    space = ["--space", "optimizer.generator.lr=choice(8e-4, 1e-6)", "--search", "grid"]
    process = tune(
        data, bucket, *space, "--name", "asha", "--concurrent", "1", "--workers-per-trial", "2", "--grace-kimg", "0.5",
        "training.kimg=1", cwd=tmp_path,
    )  # fmt: skip
    output = finish(process, 400)
    assert process.returncode == 0, output
    record = require_record(f"{bucket}/asha")
    assert [trial.overrides["optimizer.generator.lr"] for trial in record.trials] == [8e-4, 1e-6]
    assert [trial.state for trial in record.trials] == ["budget", "stopped"], output
    assert our_processes() == before


def test_a_trial_of_two_workers_goes_on_where_its_actor_was_killed(data: str, bucket: str, tmp_path: Path) -> None:
    """Both processors are the first workers': where Ray did not free them, the trial would wait for ever."""
    before = our_processes()
    process = tune(
        data, bucket, "--space", "optimizer.generator.lr=choice(4e-4, 8e-4)", "--name", "killed", "--trials", "1",
        "--concurrent", "1", "--workers-per-trial", "2", "training.kimg=4", cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    assert any("trial 0 at 0.5 kimg" in line for line in process.stdout)
    actors = [pid for pid, command in our_processes().items() if "ray::ResourceTrainable" in command]
    assert len(actors) == 1
    os.kill(actors[0], signal.SIGKILL)
    output = finish(process, 400)
    assert process.returncode == 0, output
    (trial,) = require_record(f"{bucket}/killed").trials
    assert (trial.state, len(trial.curve)) == ("budget", 8), output
    summary = json.loads(Storage.open(f"{bucket}/killed/trials/{trial.name}").read_bytes("summary.json"))
    first, second = (attempt["failure"] for attempt in summary["attempts"])
    assert first.startswith("its actor on 127.0.0.1: its process died")
    assert second is None
    assert our_processes() == before


def test_a_population_hands_on_states_with_new_values(data: str, bucket: str, tmp_path: Path) -> None:
    before = our_processes()
    space = ["--space", "optimizer.generator.lr=loguniform(2e-4, 8e-4)", "--scheduler", "pbt", "--trials", "2"]
    process = tune(data, bucket, *space, "--name", "pbt", "--interval-kimg", "0.5", "training.kimg=1", cwd=tmp_path)
    output = finish(process, 400)
    assert process.returncode == 0, output
    assert our_processes() == before
    record = require_record(f"{bucket}/pbt")
    assert [trial.generation for trial in record.trials] == [0, 0, 1, 1]
    best = min(record.trials[:2], key=lambda trial: trial.curve[-1][1])
    assert [trial.parent for trial in record.trials[2:]] == [best.number] * 2
    child = next(trial for trial in record.trials[2:] if trial.number - 2 != best.number)
    assert child.draw != best.draw

    runs = Storage.open(f"{bucket}/pbt/trials")
    donor = find_checkpoint(f"{runs.url}/{best.name}", "last")
    began = CheckpointStore(runs.child(child.name)).names()[0]
    taken = find_checkpoint(f"{runs.url}/{child.name}/checkpoints/{began}")
    assert taken.manifest.continued_from == donor.url
    assert taken.manifest.step == donor.manifest.step
    weights, given = tensors_of(taken.tensors["generator"]), tensors_of(donor.tensors["generator"])
    assert all(weights[name].equal(given[name]) for name in given)
    rate = tensors_of(taken.tensors["generator_optimizer"])["/param_groups/0/lr"]
    assert float(rate) == child.overrides["optimizer.generator.lr"]


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a Ray cluster of two nodes with addresses of their own, and the second one."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    before = our_processes()
    common = ["--block", "--num-cpus", "1", "--object-store-memory", "100000000"]
    head_options = ["--head", "--port", "6391", "--dashboard-host", "127.0.0.1", "--dashboard-port", "8391"]
    head = ray_node("start", *head_options, *common, cwd=tmp_path)
    other = ray_node("start", "--address", "127.0.0.1:6391", "--node-ip-address", "127.0.0.2", *common, cwd=tmp_path)
    yield "127.0.0.1:6391", other
    kill_ray_nodes([other, head], before)


def test_a_trial_goes_on_where_its_node_died(
    data: str, bucket: str, two_nodes: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    address, other = two_nodes
    command = [
        *SPACE,
        "--name",
        "nodes",
        "--scheduler",
        "none",
        "--trials",
        "2",
        "training.kimg=4",
        "--address",
        address,
    ]
    process = tune(data, bucket, *command, cwd=tmp_path)
    assert process.stdout is not None
    seen: set[str] = set()
    for line in process.stdout:
        seen |= {f"trial {number}" for number in (0, 1) if line.startswith(f"trial {number} at ")}
        if len(seen) == 2:
            break
    os.killpg(other.pid, signal.SIGKILL)
    output = finish(process, 400)
    assert process.returncode == 0, output
    record = require_record(f"{bucket}/nodes")
    assert [trial.state for trial in record.trials] == ["budget", "budget"], output
    for trial in record.trials:
        assert trial.kimg == pytest.approx(4.0, rel=0.01)
        kimg = trained_kimg(f"{bucket}/nodes", trial)
        assert kimg == sorted(set(kimg))
