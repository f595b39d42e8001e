"""How a benchmark says what it measured, and where."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

console = Console(soft_wrap=True)


def machine() -> str:
    """One line on the machine and the versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores of {model}, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def about(device: torch.device) -> dict[str, Any]:
    """The machine, the device, versions and the date, for JSON."""
    tree = {"machine": machine(), "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}
    if device.type != "cuda":
        return tree | {"device": "cpu", "driver": None}
    properties = torch.cuda.get_device_properties(device)
    return tree | {
        "device": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB",
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _driver() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    asked = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stdout.strip() or None


def save(file: Path, tree: Mapping[str, Any]) -> None:
    """Writes JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}")
    draft.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    draft.replace(file)


def print_rates(title: str, rates: Mapping[str, list[float]]) -> None:
    """A table of the median, slowest and fastest turn of each side, in images a second."""
    table = Table("images a second", "median", "slowest", "fastest", "turns", title=title, title_justify="left")
    for name, values in rates.items():
        cells = [f"{value:,.1f}" for value in (statistics.median(values), min(values), max(values))]
        table.add_row(name, *cells, str(len(values)))
    console.print(table)


def print_ratio(label: str, value: float, target: float | None = None) -> None:
    """One ratio, and what it is meant to be at least."""
    console.print(f"{label}: {value:.2f}" + (f" (target: at least {target:.2f})" if target is not None else ""))
