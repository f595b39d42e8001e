"""What the control group of this process, as a container's, allows it."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_processors(cgroup: Path = CGROUP) -> float:
    """Processors that this process may use: those of its affinity, or a smaller quota, which may be a fraction."""
    usable = float(len(os.sched_getaffinity(0)))
    quota = _quota(cgroup)
    return usable if quota is None else min(usable, quota)


def usable_processes(cgroup: Path = CGROUP) -> int:
    """How many busy processes fill the usable processors; at least 1."""
    return max(1, math.ceil(usable_processors(cgroup)))


def read_number(file: Path) -> int | None:
    """The number in a file of a control group; None where there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _quota(cgroup: Path) -> float | None:
    """Processors that a control group (version 1 or 2) allows; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        allowed, each = read_number(cgroup / "cpu/cpu.cfs_quota_us"), read_number(cgroup / "cpu/cpu.cfs_period_us")
        return allowed / each if allowed and each and allowed > 0 else None
