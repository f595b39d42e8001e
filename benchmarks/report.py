"""How a benchmark says what it measured, and where."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path

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
