"""Checks the facts of a diagnosis: what is wrong in a cluster, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from distgan.doctor.facts import Diagnosis, Machine, Node, Space, Timing
from distgan.text import plural

# fail: runs do not work, or do the wrong thing; warn: they are slower than they could be, or may fail soon.
Level = Literal["fail", "warn"]


@dataclass(frozen=True)
class Finding:
    """A fault; `check` is its kind, `where` a node's address, a pair of addresses or "the cluster"."""

    level: Level
    check: str
    where: str
    what: str
    remedy: str


# Different versions of these break a run, or may change its numbers.
_MUST_AGREE = ("python", "distgan", "torch", "ray")

_SHOULD_AGREE = ("numpy", "nccl")

_LEAST_SHARED_BYTES = 256 * 2**20

_LEAST_MEMORY_BYTES = 2 * 10**9

_LEAST_DISK_BYTES = 5 * 10**9

# Ray writes no objects to a fuller disk (RAY_local_fs_capacity_threshold).
_RAY_FULL = 0.95

_BUSY = 1.5

_SKEW_S = 1.0

# Amazon's S3 refuses requests that are 15 minutes off.
_SKEW_REFUSED_S = 900.0

_SLOW_OBJECTS_BYTES = 100e6


def run_checks(diagnosis: Diagnosis) -> list[Finding]:
    """All findings, failures first."""
    findings = check_cluster(diagnosis)
    for node in diagnosis.nodes:
        findings += check_node(node, diagnosis.driver)
    findings += check_access(diagnosis)
    return sorted(findings, key=lambda one: one.level != "fail")


def check_node(node: Node, driver: Machine) -> list[Finding]:
    """Findings of one node; its versions are compared with those of `driver`, which starts the run."""
    if node.problem is not None:
        return [_unreachable(node)]
    found = [_clock(node), _object_store(node)]
    if node.machine is not None:
        found += [*_versions(node, node.machine, driver), *_room(node, node.machine), *_gpus(node, node.machine)]
    return [one for one in found if one is not None]


def _unreachable(node: Node) -> Finding:
    if not node.alive:
        remedy = "start Ray there again, or read the logs of its raylet for the reason; runs do not wait for it"
        return Finding("warn", "node", node.address, str(node.problem), remedy)
    remedy = "check the machine and Ray's logs there; install the same distgan, torch and Ray on every node"
    return Finding("fail", "node", node.address, str(node.problem), remedy)


def _versions(node: Node, machine: Machine, driver: Machine) -> Iterator[Finding]:
    levels: dict[Level, tuple[str, ...]] = {"fail": _MUST_AGREE, "warn": _SHOULD_AGREE}
    for level, names in levels.items():
        pairs = {name: (machine.versions.get(name, "none"), driver.versions.get(name, "none")) for name in names}
        other = [f"{name} {there}, not {here}" for name, (there, here) in pairs.items() if there != here]
        if other:
            remedy = "install the driver's versions there, or use one image for all nodes"
            yield Finding(level, "versions", node.address, ", ".join(other), remedy)


def _room(node: Node, machine: Machine) -> Iterator[Finding]:
    """Processors, memory and disks."""
    processors, given = machine.processors, node.resources.get("CPU", 0.0)
    if given > processors.usable:
        yield Finding(
            "warn", "processors", node.address,
            f"Ray has {given:g} CPUs there, and {processors.usable:g} can be used",
            f"start Ray there with --num-cpus={max(1, int(processors.usable))}, or give the container more",
        )  # fmt: skip
    if processors.load > _BUSY * processors.present:
        yield Finding(
            "warn", "processors", node.address,
            f"busy: a load of {processors.load:.1f} on {processors.present} processors",
            "check what else runs there; all workers wait for the slowest one",
        )  # fmt: skip
    if machine.memory.free < _LEAST_MEMORY_BYTES:
        yield Finding(
            "warn", "memory", node.address, f"{_gigabytes(machine.memory.free)} of memory are free",
            "free some, or place fewer workers there: Ray ends workers where a node's memory runs out",
        )  # fmt: skip
    yield from _shared_memory(node, machine.shared_memory)
    yield from _session(node, machine.session)


def _shared_memory(node: Node, shared: Space | None) -> Iterator[Finding]:
    if shared is None:
        return
    wanted = max(_LEAST_SHARED_BYTES, int(node.resources.get("object_store_memory", 0)))
    if shared.total < wanted:
        yield Finding(
            "warn", "shared memory", node.address,
            f"/dev/shm has {_gigabytes(shared.total)}, and Ray's object store and workers need {_gigabytes(wanted)}: "
            f"the store goes to a disk, and NCCL may fail",
            f"make it larger: docker run --shm-size={-(-wanted // 2**20)}m, or an emptyDir of medium Memory",
        )  # fmt: skip


def _session(node: Node, session: Space | None) -> Iterator[Finding]:
    """The disk of Ray's session folder."""
    if session is None or session.free >= _LEAST_DISK_BYTES:
        return
    full = session.free < (1 - _RAY_FULL) * session.total
    yield Finding(
        "fail" if full else "warn", "disk", node.address,
        f"the disk of Ray's session folder has {_gigabytes(session.free)} of {_gigabytes(session.total)} free"
        + (f": Ray writes nothing to one that is fuller than {_RAY_FULL:.0%}" if full else ""),
        "free some, or start Ray there with --temp-dir on another disk",
    )  # fmt: skip


def _gpus(node: Node, machine: Machine) -> Iterator[Finding]:
    gpus, given = machine.gpus, int(node.resources.get("GPU", 0))
    if gpus.problem is not None or (gpus.on_bus and not gpus.names):
        reason = gpus.problem or f"{gpus.on_bus} NVIDIA GPUs on its bus, and no driver that answers"
        remedy = "install the NVIDIA driver there; in a container, the NVIDIA container toolkit and --gpus all"
        yield Finding("fail", "GPUs", node.address, reason, remedy)
    elif gpus.names and gpus.torch_cuda is None:
        remedy = "install torch's CUDA build there, or the CUDA image; else training is on processors"
        yield Finding(
            "warn", "GPUs", node.address, f"{plural(len(gpus.names), 'GPU')}, and a torch without CUDA", remedy
        )
    elif gpus.names and gpus.torch_sees < len(gpus.names):
        yield Finding(
            "warn", "GPUs", node.address,
            f"{plural(len(gpus.names), 'GPU')}, driver {gpus.driver}, of which torch (CUDA {gpus.torch_cuda}) sees "
            f"{gpus.torch_sees}",
            "install a newer driver, or torch for an older CUDA; check CUDA_VISIBLE_DEVICES there",
        )  # fmt: skip
    if given > gpus.torch_sees:
        yield Finding(
            "fail", "GPUs", node.address, f"Ray has {given} GPUs there, and torch sees {gpus.torch_sees}",
            f"start Ray there with --num-gpus={gpus.torch_sees}, or repair the driver",
        )  # fmt: skip


def _clock(node: Node) -> Finding | None:
    clock = node.clock
    if clock is None or abs(clock.ahead) - clock.uncertainty <= _SKEW_S:
        return None
    way = "ahead of" if clock.ahead > 0 else "behind"
    return Finding(
        "fail" if abs(clock.ahead) > _SKEW_REFUSED_S else "warn", "clock", node.address,
        f"{abs(clock.ahead):.1f} s {way} the driver's: times in logs and curves are wrong, and S3 refuses requests "
        f"that are {_SKEW_REFUSED_S / 60:.0f} minutes off",
        "keep the clock by NTP there (systemctl enable --now systemd-timesyncd, or chrony)",
    )  # fmt: skip


def _object_store(node: Node) -> Finding | None:
    seconds = node.object_store_seconds
    if seconds is None or node.object_store_bytes / seconds >= _SLOW_OBJECTS_BYTES:
        return None
    return Finding(
        "warn", "object store", node.address,
        f"{node.object_store_bytes / seconds / 1e6:.0f} MB/s through Ray's object store",
        "check that /dev/shm is large enough and memory is free, so that it does not use a disk",
    )  # fmt: skip


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count < 1e10 else f"{count / 1e9:.0f} GB"


_CREDENTIALS = (
    "give the node the URL's credentials: AWS variables where `ray start` runs, ~/.aws, an instance role, or "
    "`distgan submit --env-file`"
)


def check_access(diagnosis: Diagnosis) -> list[Finding]:
    """Findings of data and storage, for every node."""
    return [*_data(diagnosis), *_storage(diagnosis)]


def _data(diagnosis: Diagnosis) -> Iterator[Finding]:
    read = {node.address: node.data for node in diagnosis.nodes if node.data is not None}
    for address, one in read.items():
        if one.problem is not None:
            yield Finding("fail", "data", address, one.problem, _remedy(diagnosis.data_url))
    hashes = {address: one.hash for address, one in read.items() if one.problem is None}
    if len(set(hashes.values())) > 1:
        most, _ = Counter(hashes.values()).most_common(1)[0]
        others = ", ".join(address for address, value in hashes.items() if value != most)
        yield Finding(
            "fail", "data", others, f"{diagnosis.data_url}: another data set than the other nodes see",
            "copy the same data to every node, or use a URL that all nodes share",
        )  # fmt: skip


def _storage(diagnosis: Diagnosis) -> Iterator[Finding]:
    if diagnosis.storage_problem is not None:
        yield Finding("fail", "storage", "the driver", diagnosis.storage_problem, _remedy(diagnosis.storage_url))
    used = {node.address: node.storage for node in diagnosis.nodes if node.storage is not None}
    for address, one in used.items():
        if one.problem is not None:
            yield Finding("fail", "storage", address, one.problem, _remedy(diagnosis.storage_url))
        elif one.sees_mark is False:
            yield Finding(
                "fail", "storage", address, f"{diagnosis.storage_url}: not the same folder as the driver's",
                "give a URL that all nodes share: s3://…, gs://…, or a folder that is mounted everywhere",
            )  # fmt: skip


def _remedy(url: str | None) -> str:
    if url is not None and "://" in url and not url.startswith("file:"):
        return _CREDENTIALS
    return "mount or copy the folder there, or give a URL that all nodes reach"


_CLUSTER = "the cluster"

# Bytes a second on a link: gigabit Ethernet has 118 MB/s; GPUs need ten times that to stay busy.
_SLOW = {"gloo": 100e6, "nccl": 1e9}

_SLOW_ANSWER_S = 0.02

_GRADIENT_BYTES = 16 * 2**20


def check_cluster(diagnosis: Diagnosis) -> list[Finding]:
    """Findings of the cluster as a whole."""
    return [*_blocked(diagnosis), *_all_reduce(diagnosis), *_gpu_kinds(diagnosis), *_no_nodes(diagnosis)]


def _no_nodes(diagnosis: Diagnosis) -> Iterator[Finding]:
    alive = [node for node in diagnosis.nodes if node.alive]
    if not any(node.resources.get("CPU", 0) for node in alive):
        yield Finding("fail", "processors", _CLUSTER, "no node has processors for workers", "add nodes")


def _blocked(diagnosis: Diagnosis) -> Iterator[Finding]:
    for one in diagnosis.blocked:
        yield Finding(
            "fail", "connections", f"{one.source} → {one.target}", f"a worker cannot reach one there: {one.reason}",
            "open all TCP ports between the nodes, in both directions (security group, firewall, network policy): "
            "gloo, NCCL and Ray's workers take ports as the system gives them",
        )  # fmt: skip


def _all_reduce(diagnosis: Diagnosis) -> Iterator[Finding]:
    one = diagnosis.all_reduce
    if one is None:
        return
    where = " ↔ ".join(sorted(set(one.workers)))
    if one.problem is not None:
        yield Finding(
            "fail", "all-reduce", where, f"{one.backend}: {one.problem}",
            "check that TCP ports between these nodes are open, in both directions; if nodes have several networks, "
            "name the interface with placement.interface",
        )  # fmt: skip
        return
    small, large = min(one.timings, key=_size, default=None), max(one.timings, key=_size, default=None)
    if small is None or large is None:
        return
    if len(set(one.workers)) > 1 and large.bus_bytes_per_second(len(one.workers)) < _SLOW[one.backend]:
        yield Finding(
            "warn", "all-reduce", where,
            f"{large.bus_bytes_per_second(len(one.workers)) / 1e6:.0f} MB/s by {one.backend}: the gradients of a "
            f"preset's generator at 64x64 (about {_GRADIENT_BYTES / 1e6:.0f} MB) take {large.seconds * 1e3:.0f} ms",
            "use a faster network between the nodes, fewer workers with more groups each, or a larger batch",
        )  # fmt: skip
    if small.seconds > _SLOW_ANSWER_S:
        yield Finding(
            "warn", "all-reduce", where, f"one of {small.bytes} bytes takes {small.seconds * 1e3:.0f} ms",
            "place the nodes near each other (one zone, a placement group); check what keeps their processors busy",
        )  # fmt: skip


def _size(timing: Timing) -> int:
    return timing.bytes


def _gpu_kinds(diagnosis: Diagnosis) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = {}
    for node in diagnosis.nodes:
        for name in sorted(set(node.machine.gpus.names)) if node.machine is not None else ():
            kinds.setdefault(name, []).append(node.address)
    if len(kinds) > 1:
        listed = "; ".join(f"{name} on {', '.join(addresses)}" for name, addresses in sorted(kinds.items()))
        yield Finding(
            "warn", "GPUs", _CLUSTER, f"of different kinds: {listed}",
            "place a run on one kind (placement.accelerator_type): each step waits for the slowest worker",
        )  # fmt: skip
