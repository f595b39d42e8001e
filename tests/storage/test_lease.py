"""One process at a time writes into a folder; a claim outlives a crash, and is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli, one_line
from distgan.errors import UserError
from distgan.storage import lease as leases
from distgan.storage.claim import CLAIM_NAME, Claim, machine_id
from distgan.storage.lease import Lease, LeaseLostError, check_claim, check_unclaimed, claimed
from distgan.storage.storage import Storage, UnavailableError
from distgan.training.events import StepMetrics
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from processes import TINY, start, wait_for
from runs import ALONE, Recorder, checkpoints, run, tiny_config

pytestmark = pytest.mark.timeout(120)

REMEDY = "give another --name"
KILLED = """
import os, signal, sys
from distgan.storage.lease import claimed
from distgan.storage.storage import Storage
with claimed(Storage.open(sys.argv[1]), "packs", "choose another place") as lease:
    lease.write_shards(3)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"LIFETIME_S": 0.3, "_RENEW_S": 0.02, "_FIRST_S": 0.02, "_POLL_S": 0.02}.items():
        monkeypatch.setattr(leases, name, seconds)


def write(storage: Storage, **changes: Any) -> Claim:
    """Writes a claim that is not renewed, by default of a process of another machine."""
    claim = Claim.new("trains this run").model_copy(update={"machine": "elsewhere", "host": "far", "pid": 7, **changes})
    storage.write_bytes(CLAIM_NAME, claim.model_dump_json().encode())
    return claim


def enter(storage: Storage) -> int:
    """Claims the folder; returns how many shards the process before left."""
    with claimed(storage, "packs", REMEDY) as lease:
        return lease.left_shards


def test_a_second_process_fails_and_a_later_one_succeeds(tmp_path: Path) -> None:
    storage = Storage.open(f"{tmp_path}/run")
    with claimed(storage, "trains this run", REMEDY) as lease:
        before = storage.read_bytes(CLAIM_NAME)
        with pytest.raises(UserError) as caught:
            enter(storage)
        assert str(caught.value).startswith(
            f"{storage.url}: process {os.getpid()} on {os.uname().nodename} trains this"
        )
        assert f"there; {REMEDY}, or end that process" in str(caught.value)
        assert storage.read_bytes(CLAIM_NAME) == before
        lease.storage.child("deep").write_bytes("file", b"mine")
    assert storage.list() == ["deep"]
    assert enter(storage) == 0
    empty = Storage.open(f"{tmp_path}/empty")
    enter(empty)
    assert not Path(empty.root).exists()


def test_on_an_object_store(bucket: str) -> None:
    storage = Storage.open(f"{bucket}/run")
    with claimed(storage, "trains this run", REMEDY), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        enter(storage)
    assert storage.list() == []


def test_a_killed_process_of_this_machine_does_not_block(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert process.returncode == -signal.SIGKILL
    storage = Storage.open(str(tmp_path))
    with pytest.raises(UserError, match="is packing there, or was killed while it did"):
        check_unclaimed(storage)
    assert enter(storage) == 3
    assert storage.list() == []


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()], ids=["this", "parent"])
def test_a_reused_process_id_does_not_block(tmp_path: Path, pid: int) -> None:
    storage = Storage.open(str(tmp_path))
    write(storage, machine=machine_id(), pid=pid, started="1")
    assert enter(storage) == 0


@pytest.mark.parametrize("content", [None, b"", b'{"token": 1}'])
def test_a_claim_that_is_not_renewed_expires(tmp_path: Path, quick: None, content: bytes | None) -> None:
    storage = Storage.open(str(tmp_path))
    if content is None:
        write(storage, shards=2)
    else:
        storage.write_bytes(CLAIM_NAME, content)
    began = time.monotonic()
    assert enter(storage) == (2 if content is None else 0)
    assert time.monotonic() - began >= leases.LIFETIME_S


def test_a_renewed_claim_of_another_machine_blocks(tmp_path: Path, quick: None) -> None:
    storage = Storage.open(str(tmp_path))
    claim = write(storage)
    renewing = threading.Timer(0.1, lambda: write(storage, token=claim.token, renewals=1))
    renewing.start()
    with pytest.raises(UserError, match=f"process 7 on far trains this run there; {REMEDY}"):
        enter(storage)
    renewing.join()
    check_claim(storage, claim.token)


def test_a_claim_is_renewed(tmp_path: Path, quick: None) -> None:
    storage = Storage.open(str(tmp_path))
    with claimed(storage, "packs", REMEDY):
        wait_for(lambda: json.loads(storage.read_bytes(CLAIM_NAME))["renewals"] >= 2, 20)


def outage(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_an_outage_is_a_warning_and_no_end(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage.open(str(tmp_path))
    with claimed(storage, "packs", REMEDY) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(leases, "check_claim", outage(UnavailableError("s3://b: away")))
            wait_for(lambda: bool(caplog.messages), 20)
            time.sleep(5 * leases._RENEW_S)
        renewals = json.loads(storage.read_bytes(CLAIM_NAME))["renewals"]
        wait_for(lambda: json.loads(storage.read_bytes(CLAIM_NAME))["renewals"] > renewals, 20)
        assert not lease.lost
        lease.storage.write_bytes("file", b"mine")
    assert caplog.messages == ["s3://b: away; until its claim is renewed, another process may take the place over"]
    assert storage.list() == ["file"]


@pytest.mark.parametrize("gone", [False, True])
def test_after_a_loss_nothing_is_written_or_deleted(tmp_path: Path, quick: None, gone: bool) -> None:
    storage = Storage.open(str(tmp_path))
    lost = "gone: another process has taken over" if gone else "replaced: process 7 on far has taken over"

    def take_over(lease: Lease) -> bool:
        """Again if a renewal that had begun has undone it."""
        if gone:
            storage.delete(CLAIM_NAME)
        else:
            write(storage)
        return lease.lost

    def take_over_and_try() -> None:
        with claimed(storage, "packs", REMEDY) as lease:
            storage.write_bytes("theirs", b"theirs")
            wait_for(lambda: take_over(lease), 20)
            for action in (
                lambda: lease.storage.write_bytes("theirs", b"mine"),
                lambda: lease.storage.upload(Path(__file__), "theirs"),
                lambda: lease.storage.delete("theirs"),
                lambda: lease.storage.child("deep").write_bytes("file", b"mine"),
                lambda: lease.write_shards(1),
            ):
                with pytest.raises(LeaseLostError, match=lost):
                    action()

    with pytest.raises(LeaseLostError, match=lost):
        take_over_and_try()
    assert storage.list() == (["theirs"] if gone else [CLAIM_NAME, "theirs"])
    assert storage.read_bytes("theirs") == b"theirs"


def test_a_run_that_was_taken_over_saves_nothing(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 8, "checkpoint.every_kimg=0.032")
    storage = Storage.open(str(tmp_path)).child("run")

    def take_over(event: object) -> None:
        if isinstance(event, StepMetrics) and event.step == 3:
            write(storage)

    with (
        pytest.raises(LeaseLostError, match="process 7 on far has taken over"),
        claimed(storage, "trains", REMEDY) as lease,
    ):
        train(RunSpec(config, "run", str(tmp_path), claim=lease.token), ALONE, Recorder(on_event=take_over))
    assert checkpoints(str(tmp_path)).names() == ["step-000000002"]
    summary, _ = run(config, str(tmp_path))
    assert (summary.resumed_at_kimg, summary.reason) == (0.032, "budget")


@pytest.mark.slow
def test_two_trainings_of_one_name_and_one_after_a_kill(cli: Cli, data: str, tmp_path: Path) -> None:
    command = ["train", "quickstart", f"data.url={data}", *TINY, "--no-ray", "--storage", str(tmp_path), "--name", "a"]
    first = start("-m", "distgan", *command, "training.kimg=100000", cwd=tmp_path)
    try:
        wait_for(lambda: first.poll() is not None or checkpoints(str(tmp_path), "a").newest_manifest() is not None)
        assert first.poll() is None
        message = one_line(cli(*command, "training.kimg=100000"))
        assert f"process {first.pid} on {os.uname().nodename} trains this run there; {REMEDY}" in message
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert CLAIM_NAME in Storage.open(f"{tmp_path}/a").list()
    result = cli(*command, "training.kimg=0.1")
    assert (result.code, "waiting" in result.err) == (0, False)
    assert CLAIM_NAME not in Storage.open(f"{tmp_path}/a").list()
