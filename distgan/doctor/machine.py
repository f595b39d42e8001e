"""What a machine gives this process: processors, memory, GPUs, room on disks, versions."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from distgan import __version__
from distgan.doctor.facts import Gpus, Machine, Processors, Space

_BUS = Path("/sys/bus/pci/devices")

_NVIDIA = "0x10de"

_DISPLAY_CLASS = "0x03"

_ANSWER_S = 20.0

_QUESTION = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")


def probe_gpus(command: tuple[str, ...] = _QUESTION, bus: Path = _BUS) -> Gpus:
    """Asks the driver's tool, the bus and torch; `command` prints name, MiB and driver of each GPU, a line each."""
    told, problem = _ask(command)
    rows = [[part.strip() for part in line.split(",")] for line in told.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    return Gpus(
        names=tuple(row[0] for row in rows),
        memory=tuple(int(row[1]) * 2**20 if row[1].isdigit() else 0 for row in rows),
        driver=rows[0][2] if rows else None,
        on_bus=_on_bus(bus),
        torch_cuda=torch.version.cuda,
        torch_sees=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        problem=problem,
    )


def nccl_version() -> str | None:
    """Of torch's own NCCL; None for a build without."""
    if not torch.distributed.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]


def _ask(command: tuple[str, ...]) -> tuple[str, str | None]:
    """What the tool prints, and why it printed nothing; no problem where it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_ANSWER_S)
    except FileNotFoundError:
        return "", None
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} does not answer within {_ANSWER_S:.0f} s"
    except OSError as error:
        return "", f"{command[0]} cannot be run ({error.strerror})"
    if done.returncode != 0:
        said = " ".join((done.stdout + done.stderr).split())
        return "", f"{command[0]} fails: {said:.200}" if said else f"{command[0]} fails (exit code {done.returncode})"
    return done.stdout, None


def _on_bus(bus: Path) -> int:
    """Display controllers and accelerators of the maker; its other devices, as audio, are none."""
    try:
        devices = list(bus.iterdir())
    except OSError:
        return 0
    return sum(
        _read(device / "vendor") == _NVIDIA and _read(device / "class")[:4] == _DISPLAY_CLASS for device in devices
    )


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


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
