"""The files that a run under observation writes beside its own: steps, and samples (`benchmarks.chaos.worker`)."""

from __future__ import annotations

import struct
from pathlib import Path

# The folder of these files.
FOLDER = "DISTGAN_CHAOS_FOLDER"

STEP = struct.Struct("<qd")


def label(url: str) -> str:
    """A name for the files of a run: its own, that of its search before it."""
    *_, search, folder, name = ["", "", *url.split("/")]
    return f"{search}.{name}" if folder == "trials" else name


def read_steps(file: Path) -> list[tuple[int, float]]:
    """The steps in the order in which they were logged, repeated ones again, with their times."""
    data = file.read_bytes() if file.exists() else b""
    return list(STEP.iter_unpack(data[: len(data) // STEP.size * STEP.size]))


def read_samples(file: Path) -> dict[tuple[int, int], set[str]]:
    """The checksums of a batch and group; repeated batches have one."""
    found: dict[tuple[int, int], set[str]] = {}
    for line in file.read_text().splitlines():
        batch, group, checksum = line.split()
        found.setdefault((int(batch), int(group)), set()).add(checksum)
    return found
