"""Real clusters of several Ray nodes on this machine, through `cluster/local`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.local.network import can_have_namespaces
from cluster.local.nodes import alive_addresses
from cluster.local.processes import NAMESPACES, processes_of
from cluster.local.state import Node, State, read_state

ROOT = Path(__file__).resolve().parents[2]

# Network namespaces need root and iproute2.
MODES: list[list[str]] = [*([[]] if can_have_namespaces() else []), ["--no-namespaces"]]

_DOWN_WHEN_ORPHANED = """
import pathlib, sys
from cluster.local.lifecycle import down
sys.stdin.read()
down(pathlib.Path(sys.argv[1]))
"""


@dataclass(frozen=True)
class LocalCluster:
    """A running local cluster in a directory of its own."""

    directory: Path
    state: State

    @property
    def token(self) -> str:
        return (self.directory / "token").read_text()

    def environment(self) -> dict[str, str]:
        """This process's environment after `source env.sh`."""
        script = f". {self.directory}/env.sh; env -0"
        shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=10).stdout
        return dict(line.split("=", 1) for line in shown.split("\0") if line)

    def alive(self) -> set[str]:
        return alive_addresses(self.state, self.token)

    def listening(self) -> dict[Node, set[tuple[str, int]]]:
        """(address, port) of every TCP port that a process of the node listens on."""
        return {node: self._listening_on(node) for node in self.state.nodes}

    def _listening_on(self, node: Node) -> set[tuple[str, int]]:
        enter = ["nsenter", f"--net={NAMESPACES / node.namespace}"] if node.namespace else []
        command = [*enter, "ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        ours = processes_of(self.state)
        found = set()
        for line in shown.splitlines():
            if ours & {int(pid) for pid in re.findall(r"pid=(\d+)", line)}:
                address, _, port = line.split()[3].rpartition(":")
                found.add((address.strip("[]").removeprefix("::ffff:"), int(port)))
        return found


def command(name: str, directory: Path, *arguments: str, seconds: float = 200) -> subprocess.CompletedProcess[str]:
    """`cluster/local/NAME`, as users call it."""
    return subprocess.run(
        [str(ROOT / "cluster" / "local" / name), *arguments, "--dir", str(directory)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, "PATH": _path_without_environments()},
    )


def _path_without_environments() -> str:
    """As of a user who has not activated a virtual environment."""
    own = Path(sys.executable).parent
    return os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != own)


@contextmanager
def local_cluster(directory: Path, count: int, options: Sequence[str] = ()) -> Iterator[LocalCluster]:
    """`count` nodes; ended afterwards, and by a second process where this one is killed."""
    with ended_afterwards(directory):
        done = command("up", directory, str(count), *options)
        assert done.returncode == 0, done.stderr
        state = read_state(directory)
        assert state is not None
        yield LocalCluster(directory, state)


@contextmanager
def ended_afterwards(directory: Path) -> Iterator[None]:
    guard = subprocess.Popen(
        [sys.executable, "-c", _DOWN_WHEN_ORPHANED, str(directory)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield
    finally:
        done = command("down", directory)
        guard.kill()
        guard.communicate()
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes, in network namespaces where this user can have them."""
    with local_cluster(tmp_path_factory.mktemp("cluster"), 3) as cluster:
        yield cluster
