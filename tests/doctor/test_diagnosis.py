"""The facts and checks of `distgan doctor`, without Ray."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from distgan.doctor.checks import run_checks
from distgan.doctor.data_access import credentials_source, read_data, use_storage
from distgan.doctor.facts import (
    AllReduce,
    Blocked,
    Clock,
    DataRead,
    Diagnosis,
    Gpus,
    Machine,
    Node,
    Processors,
    Space,
    StorageUse,
    Timing,
)
from distgan.doctor.machine import memory, probe_gpus, probe_machine, processors
from distgan.doctor.network import SIZES, Listener, blocked_targets, compare_clocks
from distgan.doctor.report import diagnosis_document, diagnosis_table
from distgan.storage.storage import Storage
from distgan.tracking.jsonl import to_json

GB = 10**9
VERSIONS = {"python": "3.11.7", "distgan": "0.1.0", "torch": "2.13.0", "ray": "2.60.0", "numpy": "2.4.6"}
GOOD = Machine(
    host="a",
    versions=VERSIONS,
    processors=Processors(8, 8.0, 1.0),
    memory=Space(32 * GB, 20 * GB),
    gpus=Gpus(),
    shared_memory=Space(16 * GB, 16 * GB),
    session=Space(100 * GB, 50 * GB),
)
H100 = replace(GOOD, gpus=Gpus(("H100",) * 2, (80 * GB,) * 2, "580.1", 2, "13.0", 2))
FIRST = Node("10.0.0.1", {"CPU": 8, "object_store_memory": 4 * GB}, head=True, machine=GOOD)
OTHER = replace(FIRST, address="10.0.0.2", head=False)
BOTH = ("10.0.0.1", "10.0.0.2")
READ = DataRead(None, "a" * 64, 16 * 2**20, 0.1, 2000, 0.2)
USED = StorageUse(None, 8 * 2**20, 0.1, 0.1, 0.005, True)


def of(*others: Node, **changes: object) -> Diagnosis:
    """A cluster whose head has no fault."""
    return Diagnosis(GOOD, (FIRST, *others), **changes)  # type: ignore[arg-type]


def on(machine: Machine, **resources: float) -> Node:
    return replace(OTHER, machine=machine, resources={**OTHER.resources, **resources})


# The cluster; level, check, place and text of its one finding.
FAULTS = {
    "dead": (
        of(replace(OTHER, alive=False, problem="dead: raylet exited")),
        ("warn", "node", "10.0.0.2", "raylet exited.*start Ray there again"),
    ),
    "silent": (
        of(replace(OTHER, problem="cannot be examined: no answer within 90 s")),
        ("fail", "node", "10.0.0.2", "no answer within 90 s"),
    ),
    "another torch": (
        of(on(replace(GOOD, versions=VERSIONS | {"torch": "2.8.0"}))),
        ("fail", "versions", "10.0.0.2", r"^torch 2\.8\.0, not 2\.13\.0.*install the driver's"),
    ),
    "another numpy": (
        of(on(replace(GOOD, versions=VERSIONS | {"numpy": "1.26.0"}))),
        ("warn", "versions", "10.0.0.2", r"numpy 1\.26\.0, not 2\.4\.6"),
    ),
    "fewer processors": (
        of(on(replace(GOOD, processors=Processors(64, 2.5, 0)))),
        ("warn", "processors", "10.0.0.2", r"has 8 CPUs there, and 2\.5 can be used.*--num-cpus=2,"),
    ),
    "busy": (
        of(on(replace(GOOD, processors=Processors(8, 8, 20.0)))),
        ("warn", "processors", "10.0.0.2", r"load of 20\.0 on 8"),
    ),
    "no processors at all": (
        Diagnosis(GOOD, (replace(FIRST, resources={}),)),
        ("fail", "processors", "the cluster", "no node has processors"),
    ),
    "little memory": (
        of(on(replace(GOOD, memory=Space(8 * GB, GB)))),
        ("warn", "memory", "10.0.0.2", "1 GB of memory are free"),
    ),
    "docker's shared memory": (
        of(on(replace(GOOD, shared_memory=Space(64 * 2**20, 64 * 2**20)))),
        ("warn", "shared memory", "10.0.0.2", r"/dev/shm has 0\.067 GB.*--shm-size=3815m"),
    ),
    "a full disk": (
        of(on(replace(GOOD, session=Space(100 * GB, GB)))),
        ("fail", "disk", "10.0.0.2", "1 GB of 100 GB free: Ray writes nothing.*--temp-dir"),
    ),
    "a disk that is nearly full": (
        of(on(replace(GOOD, session=Space(20 * GB, 3 * GB)))),
        ("warn", "disk", "10.0.0.2", "3 GB of 20 GB free"),
    ),
    "a GPU without a driver": (
        of(on(replace(GOOD, gpus=Gpus(on_bus=1, torch_cuda="13.0")))),
        ("fail", "GPUs", "10.0.0.2", "1 NVIDIA GPUs on its bus, and no driver.*toolkit"),
    ),
    "a broken driver": (
        of(on(replace(GOOD, gpus=Gpus(problem="nvidia-smi fails: version mismatch")))),
        ("fail", "GPUs", "10.0.0.2", "version mismatch"),
    ),
    "a torch without CUDA": (
        of(on(replace(GOOD, gpus=replace(H100.gpus, torch_cuda=None, torch_sees=0)))),
        ("warn", "GPUs", "10.0.0.2", "2 GPUs, and a torch without CUDA"),
    ),
    "a driver too old for torch": (
        of(on(replace(GOOD, gpus=replace(H100.gpus, torch_sees=0)))),
        ("warn", "GPUs", "10.0.0.2", r"driver 580\.1, of which torch \(CUDA 13\.0\) sees 0"),
    ),
    "GPUs that are not there": (
        of(on(H100, GPU=4)),
        ("fail", "GPUs", "10.0.0.2", "has 4 GPUs there, and torch sees 2.*--num-gpus=2"),
    ),
    "GPUs of two kinds": (
        of(on(H100, GPU=2), replace(on(replace(H100, gpus=replace(H100.gpus, names=("T4",) * 2))), address="10.0.0.3")),
        ("warn", "GPUs", "the cluster", r"H100 on 10\.0\.0\.2; T4 on 10\.0\.0\.3"),
    ),
    "a clock ahead": (
        of(replace(OTHER, clock=Clock(3.0, 0.1, 0.2))),
        ("warn", "clock", "10.0.0.2", r"3\.0 s ahead of"),
    ),
    "a clock that S3 refuses": (
        of(replace(OTHER, clock=Clock(-1000.0, 0.1, 0.2))),
        ("fail", "clock", "10.0.0.2", r"1000\.0 s behind"),
    ),
    "a slow object store": (
        of(replace(OTHER, object_store_bytes=16 * 2**20, object_store_seconds=1.0)),
        ("warn", "object store", "10.0.0.2", "17 MB/s"),
    ),
    "data that cannot be read": (
        of(replace(OTHER, data=DataRead("s3://b/x: the secret key is wrong")), data_url="s3://b/x"),
        ("fail", "data", "10.0.0.2", "secret key is wrong.*--env-file"),
    ),
    "a folder that is elsewhere": (
        of(replace(OTHER, data=DataRead("/d: not found")), data_url="/d"),
        ("fail", "data", "10.0.0.2", "/d: not found.*mount or copy"),
    ),
    "other data": (
        Diagnosis(
            GOOD,
            (
                replace(FIRST, data=READ),
                replace(OTHER, data=replace(READ, hash="b" * 64)),
                replace(OTHER, address="10.0.0.3", data=READ),
            ),
            data_url="/d",
        ),
        ("fail", "data", "10.0.0.2", "another data set"),
    ),
    "storage that refuses": (
        of(replace(OTHER, storage=StorageUse("s3://runs: access denied")), storage_url="s3://runs"),
        ("fail", "storage", "10.0.0.2", "access denied.*credentials"),
    ),
    "storage that refuses the driver": (
        of(OTHER, storage_url="s3://runs", storage_problem="s3://runs: no usable credentials"),
        ("fail", "storage", "the driver", "no usable credentials"),
    ),
    "a folder of each node's own": (
        of(replace(OTHER, storage=replace(USED, sees_mark=False)), storage_url="/runs"),
        ("fail", "storage", "10.0.0.2", "not the same folder as the driver's"),
    ),
    "a firewall": (
        of(OTHER, blocked=(Blocked(*BOTH, "no answer within 4 s"),)),
        ("fail", "connections", "10.0.0.1 → 10.0.0.2", "no answer within 4 s.*security group"),
    ),
    "an all-reduce that hangs": (
        of(OTHER, all_reduce=AllReduce("gloo", BOTH, problem="no answer within 90 s")),
        ("fail", "all-reduce", "10.0.0.1 ↔ 10.0.0.2", "gloo: no answer.*placement.interface"),
    ),
    "a slow network": (
        of(OTHER, all_reduce=AllReduce("gloo", BOTH, (Timing(4, 0.001), Timing(SIZES[-1], 1.0)))),
        ("warn", "all-reduce", "10.0.0.1 ↔ 10.0.0.2", "^17 MB/s by gloo.*take 1000 ms"),
    ),
    "a far network": (
        of(OTHER, all_reduce=AllReduce("gloo", BOTH, (Timing(4, 0.05), Timing(SIZES[-1], 0.1)))),
        ("warn", "all-reduce", "10.0.0.1 ↔ 10.0.0.2", "4 bytes takes 50 ms.*zone"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_one_finding(name: str) -> None:
    found, (level, check, where, message) = FAULTS[name]
    kinds = {(one.level, one.check, one.where): f"{one.what}; {one.remedy}" for one in run_checks(found)}
    assert re.search(message, kinds[level, check, where])
    assert len(kinds) == 1


def test_a_healthy_cluster_has_no_findings() -> None:
    fine = replace(
        OTHER, clock=Clock(1.1, 0.2, 0.4), data=READ, storage=USED, object_store_bytes=10**8, object_store_seconds=0.5
    )
    timings = (Timing(4, 0.0005), Timing(SIZES[-1], 0.1))
    found = of(fine, on(H100, GPU=2), data_url="s3://b/x", all_reduce=AllReduce("gloo", BOTH, timings))
    assert run_checks(found) == []
    assert diagnosis_document(found, [])["ok"] is True
    assert "nothing wrong was found" in rendered(found)


def test_several_workers_of_one_node_need_no_network() -> None:
    slow = AllReduce("gloo", ("10.0.0.1",) * 2, (Timing(4, 0.001), Timing(SIZES[-1], 5.0)))
    assert run_checks(Diagnosis(GOOD, (FIRST,), all_reduce=slow)) == []


def test_failures_come_first_in_table_and_json() -> None:
    found = of(
        replace(OTHER, clock=Clock(3.0, 0.1, 0.2), data=DataRead("s3://b/x: no usable credentials")),
        Node("10.0.0.9", {}, alive=False, problem="dead: raylet exited"),
        data_url="s3://b/x",
    )
    findings = run_checks(found)
    assert [one.level for one in findings] == ["fail", "warn", "warn"]
    text = rendered(found)
    for shown in (
        "10.0.0.1 (head)",
        "10.0.0.2",
        "10.0.0.9",
        "dead",
        "no usable credentials",
        "3.0 s ahead",
        "8 for Ray",
    ):
        assert shown in text
    document = json.loads(to_json(diagnosis_document(found, findings)))
    assert document["ok"] is False
    assert document["findings"][0]["check"] == "data"
    assert document["nodes"][1]["clock"]["ahead"] == 3.0


def rendered(found: Diagnosis) -> str:
    console = Console(width=250)
    with console.capture() as capture:
        console.print(diagnosis_table(found, run_checks(found)))
    return capture.get()


def test_timings_are_those_of_a_ring() -> None:
    assert Timing(100, 2.0).bus_bytes_per_second(2) == 50.0
    assert Timing(100, 2.0).bus_bytes_per_second(4) == 75.0


# This machine.


def test_this_machine() -> None:
    found = probe_machine(Path("/"))
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"distgan", "torch", "ray", "numpy", "kernel"} <= found.versions.keys()
    assert 0 < found.processors.usable <= found.processors.present
    assert 0 < found.memory.free <= found.memory.total
    assert found.session is not None
    assert probe_machine(Path("/none/here")).session is None


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_processors_of_a_container(tmp_path: Path, files: dict[str, str], usable: float | None) -> None:
    write(tmp_path, files)
    assert processors(tmp_path).usable == (usable or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000000", "memory.current": "400000"}, Space(1_000_000, 600_000)),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "2000"}, Space(1000, 0)),
    ],
)
def test_memory_of_a_container(tmp_path: Path, files: dict[str, str], expected: Space) -> None:
    write(tmp_path, files)
    assert memory(tmp_path) == expected


@pytest.mark.parametrize("limit", ["max", str(2**62)])
def test_memory_without_a_limit(tmp_path: Path, limit: str) -> None:
    write(tmp_path, {"memory.max": limit})
    assert memory(tmp_path).total > 2**27


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text}\n")


def test_gpus_of_driver_and_bus(tmp_path: Path) -> None:
    for number, (vendor, kind) in enumerate([("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number), {"vendor": vendor, "class": kind})
    tool = (sys.executable, "-c", "print('NVIDIA H100 80GB, 81559, 580.65.06\\nNVIDIA T4, 15360, 580.65.06')")
    found = probe_gpus(tool, tmp_path)
    assert found.names == ("NVIDIA H100 80GB", "NVIDIA T4")
    assert found.memory[1] == 15360 * 2**20
    assert (found.driver, found.on_bus, found.problem) == ("580.65.06", 1, None)


def test_a_failing_driver_is_a_problem(tmp_path: Path) -> None:
    failing = probe_gpus((sys.executable, "-c", "import sys; sys.exit('NVML: mismatch')"), tmp_path)
    assert failing.names == ()
    assert str(failing.problem).endswith("fails: NVML: mismatch")
    absent = probe_gpus((str(tmp_path / "none"),), tmp_path / "none")
    assert (absent.names, absent.problem, absent.on_bus) == ((), None, 0)


def test_a_clock_is_known_to_half_a_round_trip() -> None:
    found = compare_clocks(lambda: time.time() + 5)
    assert abs(found.ahead - 5) <= found.uncertainty + 1e-3
    assert found.uncertainty == found.round_trip / 2


# Connections and all-reduces.


def test_connections_that_are_taken_refused_and_not_answered() -> None:
    listener = Listener("127.0.0.1")
    assert blocked_targets([("127.0.0.1", listener.port)]) == {}
    listener.close()
    assert blocked_targets([("127.0.0.1", listener.port)]) == {"127.0.0.1": "connection refused"}
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        results = blocked_targets([full.getsockname()], 0.5)
        for one in waiting:
            one.close()
    assert results == {"127.0.0.2": "no answer within 0.5 s"}
    with pytest.raises(OSError, match="assign"):
        Listener("203.0.113.9")


JOIN = """
import sys, torch
from distgan.doctor.network import time_all_reduces
torch.set_num_threads(1)
print(time_all_reduces("gloo", int(sys.argv[1]), 2, ("127.0.0.1", int(sys.argv[2])), float(sys.argv[3])))
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def join(rank: int, port: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOIN, str(rank), str(port), str(seconds)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_all_reduces_of_two_workers(port: int) -> None:
    results = [one.communicate(timeout=90) for one in [join(0, port, 60), join(1, port, 60)]]
    for out, err in results:
        assert out, err
        assert len(json.loads(out)) == len(SIZES)
        assert all(seconds > 0 for seconds in json.loads(out))


@pytest.mark.slow
def test_an_incomplete_group_ends(port: int) -> None:
    _, err = join(0, port, 3).communicate(timeout=90)
    assert "Error" in err


# Data and storage.


def test_data_are_read_from_disk_and_bucket(data: str, bucket: str) -> None:
    storage = Storage.open(f"{bucket}/data")
    for file in Path(data).iterdir():
        storage.upload(file, file.name)
    here, there = read_data(data), read_data(storage.url)
    assert here.problem is None
    assert there.problem is None
    assert here.hash == there.hash
    assert here.images == there.images > 0
    assert min(there.read_bytes, there.read_seconds, there.decode_seconds) > 0


def test_data_are_read_up_to_a_limit(data: str) -> None:
    assert 0 < read_data(data, 1).read_bytes < read_data(data).read_bytes


def test_data_that_are_damaged_or_absent(data: str, bucket: str, tmp_path: Path) -> None:
    for file in Path(data).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = next(tmp_path.glob("*.tar"))
    shard.write_bytes(bytes(shard.stat().st_size))
    assert "do not match the index" in str(read_data(str(tmp_path)).problem)
    assert "no index" in str(read_data(f"{bucket}/none").problem)
    assert "the bucket does not exist" in str(read_data("s3://there-is-no-such-bucket/x").problem)


def test_a_bucket_is_used_and_left_as_it_was(bucket: str) -> None:
    Storage.open(f"{bucket}/probe").write_bytes("mark", b"")
    found = use_storage(f"{bucket}/probe", "node", marked=True, size=100_000)
    assert found.problem is None
    assert found.sees_mark is True
    assert found.size == 100_000
    assert min(found.write_seconds, found.read_seconds, found.latency) > 0
    assert Storage.open(f"{bucket}/probe").list() == ["mark"]
    assert use_storage(f"{bucket}/other", "node", marked=True, size=1000).sees_mark is False


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "planted-secret", "the secret key is wrong"),
        ("AWS_ACCESS_KEY_ID", "planted-key", "the access key is not known"),
        ("AWS_ENDPOINT_URL", "http://user:planted@127.0.0.1:1", "check AWS_ENDPOINT_URL"),
    ],
)
def test_a_bucket_that_refuses(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    problem = str(use_storage(bucket, "node").problem)
    assert message in problem
    assert "planted" not in problem
    assert message in str(read_data(bucket).problem)


def test_a_bucket_that_is_not_there(object_store: object) -> None:
    assert "the bucket does not exist" in str(use_storage("s3://there-is-no-such-bucket/runs", "node").problem)


def test_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    assert use_storage(str(tmp_path / "runs" / "probe"), "node", size=1000).problem is None
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 16 KiB; None if mounting is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path]
    if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        yield None
        return
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_a_full_disk(mounted: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if mounted is None:

        def fail(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", fail)
    assert "no space left on the disk" in str(use_storage(str(tmp_path / "probe"), "node").problem)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk(mounted: Path | None, tmp_path: Path) -> None:
    if mounted is None:
        tmp_path.chmod(0o500)
    else:
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    problem = str(use_storage(str(tmp_path / "probe"), "node").problem)
    assert re.search("the file system is read-only|permission denied", problem)


def test_where_credentials_come_from(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert credentials_source(bucket) == "env"
    assert credentials_source(str(tmp_path)) is None
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert credentials_source(bucket) == "shared-credentials-file"
    monkeypatch.setenv("AWS_PROFILE", "none-such")
    assert credentials_source(bucket) is None
