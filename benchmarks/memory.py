"""Memory of a process and all its descendants, from /proc."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path


class PeakMemory:
    """Samples, in a thread, the memory of a process tree; shared pages count once.

    Attributes:
        peak_mb: the most that was seen, in MiB, as the sum of proportional set sizes.
        processes: how many processes there were then.
    """

    def __init__(self, pid: int, every_s: float = 0.5) -> None:
        self.peak_mb, self.processes = 0.0, 0
        self._pid, self._every_s = pid, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the sampling."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            sizes = [_proportional_kb(pid) for pid in descendants(self._pid)]
            if sum(sizes) / 1024 > self.peak_mb:
                self.peak_mb, self.processes = sum(sizes) / 1024, len(sizes)


def descendants(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The command's name, in parentheses, may hold spaces.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children[int(fields[1])].append(int(entry.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found


def _proportional_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
