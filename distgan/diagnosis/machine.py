"""What a machine gives this process: processors, memory, room on disks, versions."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from distgan import __version__
from distgan.diagnosis.facts import Machine, Processors, Space
from distgan.diagnosis.gpus import nccl_version, probe_gpus

_CGROUP = Path("/sys/fs/cgroup")
_SHARED_MEMORY = Path("/dev/shm")


def probe_machine(session: Path | None = None) -> Machine:
    """Of this process; `session` is Ray's session folder. Takes up to seconds where there are GPUs."""
    return Machine(
        host=socket.gethostname(),
        versions=versions(),
        processors=processors(),
        memory=memory(),
        gpus=probe_gpus(),
        shared_memory=space(_SHARED_MEMORY),
        session=None if session is None else space(session),
    )


def processors(cgroup: Path = _CGROUP) -> Processors:
    """Usable are those that neither the affinity nor the quota of a container withholds."""
    usable = float(len(os.sched_getaffinity(0)))
    quota = _quota(cgroup)
    return Processors(os.cpu_count() or 1, usable if quota is None else min(usable, quota), os.getloadavg()[0])


def memory(cgroup: Path = _CGROUP) -> Space:
    """The machine's, or a container's where that has less."""
    found = psutil.virtual_memory()
    limit = _number(cgroup / "memory.max")
    used = _number(cgroup / "memory.current")
    if limit is None:
        limit, used = _number(cgroup / "memory/memory.limit_in_bytes"), _number(cgroup / "memory/memory.usage_in_bytes")
    if limit is None or limit >= found.total:
        return Space(found.total, found.available)
    return Space(limit, min(found.available, max(0, limit - (used or 0))))


def space(folder: Path) -> Space | None:
    """Of the file system of a folder; None where there is no such folder."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Space(usage.total, usage.free)


def versions() -> dict[str, str]:
    """Of what must agree between nodes, and of the kernel; the network library of GPUs where torch has it."""
    found = {"python": platform.python_version(), "distgan": __version__}
    found |= {package: _installed(package) for package in ("torch", "ray", "numpy")}
    nccl = nccl_version()
    return found | ({"nccl": nccl} if nccl else {}) | {"kernel": platform.release()}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _quota(cgroup: Path) -> float | None:
    """Processors that a control group allows, of either version; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        allowed, each = _number(cgroup / "cpu/cpu.cfs_quota_us"), _number(cgroup / "cpu/cpu.cfs_period_us")
        return allowed / each if allowed and each and allowed > 0 else None
    return None if quota == "max" else int(quota) / int(period)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
