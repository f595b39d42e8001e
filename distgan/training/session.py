"""A session of a run as its checkpoints describe it: date, command, versions, hardware, a user's own modules."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch
from pydantic import BaseModel, ConfigDict

import distgan
from distgan.text import command, without_credentials
from distgan.training.own_modules import own_modules

_PACKAGES = ("torch", "ray", "numpy")

_MOST_LETTERS = 2_000


class Session(BaseModel):
    """A session, from its start on one machine, that of the first worker.

    Attributes:
        began: date and time in UTC, ISO 8601.
        command: of the process that started the run, of a program other than distgan its name; None for a trial of a
            search.
        versions: of Python, distgan and what it computes with; `cuda` where torch has it.
        hardware: `cpu` by name, `processors` that the process may use, `memory_gib`, `gpu` by name where it is used.
        modules: SHA-256 of each own module (`OwnModule.sha256`), by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    began: str
    command: str | None = None
    versions: dict[str, str] = {}
    hardware: dict[str, str | int] = {}
    modules: dict[str, str] = {}


def this_session(device: torch.device, started_by: str | None, custom: Iterable[str]) -> Session:
    """The session that begins now in this process; `custom` are the names `module:Class` of its configuration."""
    return Session(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        command=started_by,
        versions=_versions(),
        hardware=_hardware(device),
        modules={module.name: module.sha256 for module in own_modules(custom)},
    )


def this_command() -> str:
    """The command of this process without secrets of URLs; of another program its name, as its words may be secrets."""
    program = Path(sys.argv[0])
    if program.name == "distgan" or program.parts[-2:] == ("distgan", "__main__.py"):
        return without_credentials(command(*sys.argv[1:]))[:_MOST_LETTERS]
    return program.name[:_MOST_LETTERS]


def _versions() -> dict[str, str]:
    found = {"distgan": distgan.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | ({} if torch.version.cuda is None else {"cuda": torch.version.cuda})


def _hardware(device: torch.device) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "cpu": _cpu_name(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
    }
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()
