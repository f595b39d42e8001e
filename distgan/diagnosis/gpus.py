"""The NVIDIA GPUs of a machine, as its bus, its driver and torch know them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from distgan.diagnosis.facts import Gpus

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
