"""What is wrong with one node by itself, and beside the driver."""

from __future__ import annotations

from collections.abc import Iterator

from distgan.diagnosis.facts import Machine, Node, Space
from distgan.diagnosis.finding import Finding, Level

# Libraries whose difference breaks a run, and those whose difference may change its numbers.
_MUST_AGREE = ("python", "distgan", "torch", "ray")
_SHOULD_AGREE = ("numpy", "nccl")
_LEAST_SHARED_BYTES = 256 * 2**20
_LEAST_MEMORY_BYTES = 2 * 10**9
_LEAST_DISK_BYTES = 5 * 10**9
# Ray refuses to write objects to a disk that is fuller (RAY_local_fs_capacity_threshold).
_RAY_FULL = 0.95
_BUSY = 1.5
_SKEW_S = 1.0
# Amazon's S3 refuses requests that are 15 minutes off.
_SKEW_REFUSED_S = 900.0
_SLOW_OBJECTS_BYTES = 100e6


def judge_node(node: Node, driver: Machine) -> list[Finding]:
    """`driver`: the machine that the run is started from, with whose versions the others are compared."""
    if node.problem is not None:
        return [_lost(node)]
    found = [_clock(node), _object_store(node)]
    if node.machine is not None:
        found += [*_versions(node, node.machine, driver), *_room(node, node.machine), *_gpus(node, node.machine)]
    return [one for one in found if one is not None]


def _lost(node: Node) -> Finding:
    if not node.alive:
        remedy = "start Ray there again, or see the logs of its raylet for why it ended; runs do not wait for it"
        return Finding("warn", "node", node.address, str(node.problem), remedy)
    remedy = "look at the machine and Ray's logs there; install the same distgan, torch and Ray on every node"
    return Finding("fail", "node", node.address, str(node.problem), remedy)


def _versions(node: Node, machine: Machine, driver: Machine) -> Iterator[Finding]:
    levels: dict[Level, tuple[str, ...]] = {"fail": _MUST_AGREE, "warn": _SHOULD_AGREE}
    for level, names in levels.items():
        pairs = {name: (machine.versions.get(name, "none"), driver.versions.get(name, "none")) for name in names}
        other = [f"{name} {there}, not {here}" for name, (there, here) in pairs.items() if there != here]
        if other:
            remedy = "install the driver's versions there (constraints.txt), or use one image for all nodes"
            yield Finding(level, "versions", node.address, ", ".join(other), remedy)


def _room(node: Node, machine: Machine) -> Iterator[Finding]:
    """Processors, memory and disks."""
    processors, given = machine.processors, node.resources.get("CPU", 0.0)
    if given > processors.usable:
        yield Finding(
            "warn", "processors", node.address,
            f"Ray was told of {given:g} CPUs, and {processors.usable:g} can be used",
            f"start Ray there with --num-cpus={max(1, int(processors.usable))}, or give the container more",
        )  # fmt: skip
    if processors.load > _BUSY * processors.present:
        yield Finding(
            "warn", "processors", node.address,
            f"busy: a load of {processors.load:.1f} on {processors.present} processors",
            "see what else runs there; all workers wait for the slowest one",
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
            f"/dev/shm has {_gigabytes(shared.total)}, and Ray's object store and workers want {_gigabytes(wanted)}: "
            f"the store goes to a disk, and NCCL may fail",
            f"a larger one: docker run --shm-size={-(-wanted // 2**20)}m, or an emptyDir of medium Memory",
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
        yield Finding("warn", "GPUs", node.address, f"{len(gpus.names)} GPUs, and a torch without CUDA", remedy)
    elif gpus.names and gpus.torch_sees < len(gpus.names):
        yield Finding(
            "warn", "GPUs", node.address,
            f"{len(gpus.names)} GPUs, driver {gpus.driver}, of which torch (CUDA {gpus.torch_cuda}) sees "
            f"{gpus.torch_sees}",
            "a newer driver, or a torch for an older CUDA; see CUDA_VISIBLE_DEVICES there",
        )  # fmt: skip
    if given > gpus.torch_sees:
        yield Finding(
            "fail", "GPUs", node.address, f"Ray was told of {given} GPUs, and torch sees {gpus.torch_sees}",
            f"start Ray there with --num-gpus={gpus.torch_sees}, or mend the driver",
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
        "see that /dev/shm is large enough and memory is free, so that it need not go to a disk",
    )  # fmt: skip


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2g} GB" if count < 1e10 else f"{count / 1e9:.0f} GB"
