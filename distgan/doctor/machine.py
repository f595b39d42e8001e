"""Probes this machine: processors, memory, GPUs, disk space, versions."""

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
from distgan.container import CGROUP, read_number, usable_processors
from distgan.doctor.facts import Gpus, Machine, Processors, Space

_BUS = Path("/sys/bus/pci/devices")

_NVIDIA = "0x10de"

_DISPLAY_CLASS = "0x03"

_TIMEOUT_S = 20.0

_NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")


def probe_gpus(command: tuple[str, ...] = _NVIDIA_SMI, bus: Path = _BUS) -> Gpus:
    """GPUs by the driver's tool, the bus and torch; `command` prints name, MiB and driver version, a line a GPU."""
    output, problem = _run(command)
    rows = [[part.strip() for part in line.split(",")] for line in output.splitlines()]
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
    """The version of torch's own NCCL; None for a build without it."""
    if not torch.distributed.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]


def _run(command: tuple[str, ...]) -> tuple[str, str | None]:
    """The tool's output, or the problem; a tool that is not installed is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except FileNotFoundError:
        return "", None
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} does not answer within {_TIMEOUT_S:.0f} s"
    except OSError as error:
        return "", f"{command[0]} cannot be run ({error.strerror})"
    if done.returncode != 0:
        reason = " ".join((done.stdout + done.stderr).split())
        return (
            "",
            f"{command[0]} fails: {reason:.200}" if reason else f"{command[0]} fails (exit code {done.returncode})",
        )
    return done.stdout, None


def _on_bus(bus: Path) -> int:
    """How many NVIDIA display controllers and accelerators there are; its audio devices do not count."""
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


_SHARED_MEMORY = Path("/dev/shm")


def probe_machine(session: Path | None = None) -> Machine:
    """The machine of this process; `session` is Ray's session folder. Takes seconds if there are GPUs."""
    return Machine(
        host=socket.gethostname(),
        versions=versions(),
        processors=processors(),
        memory=memory(),
        gpus=probe_gpus(),
        shared_memory=space(_SHARED_MEMORY),
        session=None if session is None else space(session),
    )


def processors(cgroup: Path = CGROUP) -> Processors:
    """Processors; the affinity and a container's quota limit the usable ones."""
    return Processors(os.cpu_count() or 1, usable_processors(cgroup), os.getloadavg()[0])


def memory(cgroup: Path = CGROUP) -> Space:
    """The machine's memory, or a container's smaller limit."""
    found = psutil.virtual_memory()
    limit = read_number(cgroup / "memory.max")
    used = read_number(cgroup / "memory.current")
    if limit is None:
        limit, used = (
            read_number(cgroup / "memory/memory.limit_in_bytes"),
            read_number(cgroup / "memory/memory.usage_in_bytes"),
        )
    if limit is None or limit >= found.total:
        return Space(found.total, found.available)
    return Space(limit, min(found.available, max(0, limit - (used or 0))))


def space(folder: Path) -> Space | None:
    """The space of a folder's file system; None if there is no such folder."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return Space(usage.total, usage.free)


def versions() -> dict[str, str]:
    """Versions that must agree between nodes, NCCL's if torch has it, and the kernel's."""
    found = {"python": platform.python_version(), "distgan": __version__}
    found |= {package: _installed(package) for package in ("torch", "ray", "numpy")}
    nccl = nccl_version()
    return found | ({"nccl": nccl} if nccl else {}) | {"kernel": platform.release()}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
