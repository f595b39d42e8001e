"""Brings a local cluster up, and takes it down again, in whatever state it is found."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cluster.local import files, firewall, network, nodes
from cluster.local.processes import end_processes, is_alive, start_time
from cluster.local.state import Node, State, read_state, write_state
from distgan.errors import UserError
from distgan.storage.s3_server import server
from distgan.storage.s3_server.ports import choose_ports

BUCKETS = ("data", "runs")
MOST_NODES = 9
_PORTS = {"gcs": 6379, "api": 8265, "client": 10001}
_FIRST_AGENT = 52365


def up(directory: Path, count: int, namespaces: bool | None = None, timeout: float = 150) -> tuple[State, bool]:
    """`count` Ray nodes that know each other and an S3 server; and whether they were running before.

    Args:
        directory: where the state, the token, the credentials and the S3 server's data are kept; for this user only.
        count: nodes, 1 to 9; the first one is the head.
        namespaces: whether nodes are network namespaces; None: where this user and machine can have them.
        timeout: seconds until all nodes must be there.

    Raises:
        UserError: one with another number of nodes runs already, no namespaces can be had, a node does not come.
    """
    if not 1 <= count <= MOST_NODES:
        raise UserError(f"{count} nodes: a local cluster has 1 to {MOST_NODES}")
    if namespaces and not network.can_have_namespaces():
        raise UserError("network namespaces need root, iproute2 and util-linux; use sudo, or --no-namespaces")
    directory = directory.resolve()
    with _locked(directory):
        running = status(directory)
        if running is not None:
            if len(running.nodes) != count:
                raise UserError(
                    f"a cluster of {len(running.nodes)} nodes runs already at {running.api}; "
                    "cluster/local/down ends it, then try again"
                )
            return running, True
        _clean_up(directory)
        tag = secrets.token_hex(4)
        in_namespaces = network.can_have_namespaces() if namespaces is None else namespaces
        state = network.with_namespaces(tag, count) if in_namespaces else network.on_loopback(tag, count)
        write_state(directory, state)
        try:
            _bring_up(directory, state, time.monotonic() + timeout)
        except BaseException:
            _clean_up(directory)
            raise
        return state, False


def down(directory: Path) -> bool:
    """Ends all that belongs to the cluster; the S3 server's data stay. False where there was nothing."""
    directory = directory.resolve()
    if not directory.exists():
        return False
    with _locked(directory):
        found = _clean_up(directory)
        _give(directory)
        return found


def status(directory: Path) -> State | None:
    """The cluster whose nodes and S3 server all run, or None."""
    state = read_state(directory)
    if state is None or server.status(directory / "store") is None:
        return None
    return state if all(is_alive(state.starters.get(node.number)) for node in state.nodes) else None


def _bring_up(directory: Path, state: State, deadline: float) -> None:
    if state.bridge:
        network.make_network(state)
        firewall.open_bridge(state)
    state.ports = _choose_ports(state)
    state.sessions.mkdir(mode=0o700)
    store = server.up(directory / "store", host=state.gateway, timeout=deadline - time.monotonic())
    server.make_buckets(store, BUCKETS)
    for node in state.nodes:
        firewall.check_way(state, node, store.endpoint.removeprefix("http://"))
    files.write_files(directory, state, store)
    _hand_over(directory, state)
    environment = files.without_foreign_settings() | files.environment(directory, state, store)
    started: dict[Node, subprocess.Popen[bytes]] = {}

    def start(node: Node) -> None:
        started[node] = nodes.start_node(node, state, environment)
        pid = started[node].pid
        state.starters[node.number] = (pid, start_time(pid) or 0)
        write_state(directory, state)

    start(state.head)
    _wait(lambda: {state.head.address} if _answers(state) else set(), started, state, deadline)
    for node in state.nodes[1:]:
        firewall.check_way(state, node, f"{state.head.address}:{state.ports['gcs']}")
        start(node)
    token = (directory / "token").read_text()
    _wait(lambda: nodes.alive_addresses(state, token), started, state, deadline)


def _wait(
    present: Callable[[], set[str]], started: dict[Node, subprocess.Popen[bytes]], state: State, deadline: float
) -> None:
    """Returns when all started nodes are present. Raises UserError where one ends, or is not there in time."""
    while True:
        for node, process in started.items():
            if process.poll() is not None:
                raise _absent(node, state, "stopped while it started")
        try:
            missing = [node for node in started if node.address not in present()]
        except (OSError, ValueError, LookupError):
            missing = [state.head]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise _absent(missing[0], state, "is not there in time")
        time.sleep(0.2)


def _absent(node: Node, state: State, what: str) -> UserError:
    lines = nodes.log_of(node, state).read_text(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "(empty)")
    return UserError(f"node {node.number} ({node.address}) {what}; last line of its log: {last:.300}")


def _answers(state: State) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex((state.head.address, state.ports["gcs"])) == 0


def _choose_ports(state: State) -> dict[str, int]:
    """In a namespace every port is free."""
    agents = {node.agent: _FIRST_AGENT + node.number for node in state.nodes}
    ports = _PORTS | agents
    if state.bridge:
        return ports
    hosts = dict.fromkeys(_PORTS, state.head.address) | {node.agent: node.address for node in state.nodes}
    return choose_ports(list(ports), ports, {}, hosts)


def _hand_over(directory: Path, state: State) -> None:
    """Gives what the nodes write to, and what users read, to the user who called `sudo`, if any."""
    if state.bridge:
        _give(directory, state.sessions)


def _give(*paths: Path) -> None:
    """To the user who called `sudo`, if any, with all that is in them."""
    who = nodes.owner()
    if who is not None:
        for entry in (entry for path in paths for entry in (path, *path.rglob("*"))):
            with suppress(FileNotFoundError):
                os.chown(entry, *who, follow_symlinks=False)


def _clean_up(directory: Path) -> bool:
    state = read_state(directory)
    if state is not None:
        if state.bridge and not network.can_have_namespaces():
            raise UserError("the local cluster was made by root; end it with sudo cluster/local/down")
        end_processes(state)
        firewall.close_bridge(state)
        network.remove_network(state)
        shutil.rmtree(state.sessions, ignore_errors=True)
    stopped = server.down(directory / "store")
    for name in (*files.FILES, "state.json"):
        (directory / name).unlink(missing_ok=True)
    return stopped or state is not None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Only one `up` or `down` at a time in `directory`, which is made."""
    try:
        new = [path for path in (*reversed(directory.parents), directory) if not path.exists()]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(*new)
        lock = FileLock(directory / "lock", timeout=1, mode=0o600)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{directory}: another up or down is at work there; wait for it") from error
    except OSError as error:
        raise UserError(
            f"{directory}: cannot hold a cluster's state ({error.strerror}); choose another --dir"
        ) from error
    try:
        yield
    finally:
        lock.release()
