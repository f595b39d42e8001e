"""Finds and ends the processes of a local cluster, by their namespace and output file, never by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from cluster.local.state import Node, State
from distgan.errors import UserError

NAMESPACES = Path("/run/netns")
_END_SECONDS = 20.0


def start_time(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot; with its id it identifies the process."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def is_alive(starter: tuple[int, int] | None) -> bool:
    return starter is not None and start_time(starter[0]) == starter[1]


def processes_of(state: State, node: Node | None = None) -> set[int]:
    """Living processes in a namespace of the cluster or with output in its session folder, and all their children.

    Those of one node: of its namespace, or what its `ray start` and the logs in its own folder lead to.

    The output of each process and job of Ray is a log file in the session folder. The folder has a random name and
    belongs to one user, so nothing else writes there.
    """
    chosen = state.nodes if node is None else [node]
    namespaces = _identities(NAMESPACES / each.namespace for each in chosen if each.namespace)
    sessions = state.sessions if node is None else state.sessions / str(node.number)
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        fields = _stat(pid)
        if fields is None or fields[0] == "Z":
            continue
        parents[pid] = int(fields[1])
        is_starter = node is not None and (pid, int(fields[19])) == state.starters.get(node.number)
        if is_starter or _writes_to(entry, sessions) or _identities([entry / "ns" / "net"]) & namespaces:
            found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def memory_of(pids: Iterable[int]) -> int:
    """Bytes of memory of the processes, shared pages counted once (proportional set size)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def end_processes(state: State, node: Node | None = None) -> None:
    """Kills all processes, or those of a node, until no new ones appear. Raises UserError if some do not end."""
    deadline = time.monotonic() + _END_SECONDS
    while found := processes_of(state, node):
        if time.monotonic() > deadline:
            names = ", ".join(map(str, sorted(found)))
            raise UserError(f"processes {names} of the local cluster do not end; end them and try again")
        _kill(found, state)
        time.sleep(0.1)


def _kill(pids: set[int], state: State) -> None:
    """Kills processes, after opening them and checking again: an id may belong to another process by now."""
    with ExitStack() as held:
        processes = {}
        for pid in pids:
            with suppress(ProcessLookupError):
                processes[pid] = os.pidfd_open(pid)
                held.callback(os.close, processes[pid])
        for pid in processes.keys() & processes_of(state):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(processes[pid], signal.SIGKILL)


def _writes_to(process: Path, folder: Path) -> bool:
    for descriptor in ("1", "2"):
        with suppress(OSError):
            if (process / "fd" / descriptor).readlink().is_relative_to(folder):
                return True
    return False


def _identities(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """(device, inode) of each path that exists."""
    found = set()
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            found.add((status.st_dev, status.st_ino))
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on: state, parent, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
