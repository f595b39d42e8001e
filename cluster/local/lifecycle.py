"""Starts a local cluster, and stops it in whatever state it is."""

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


def up(
    directory: Path,
    count: int,
    namespaces: bool | None = None,
    timeout: float = 150,
    through: Callable[[server.StoreHandle], str] | None = None,
) -> tuple[State, bool]:
    """Starts `count` Ray nodes and an S3 server; also returns whether they were running before.

    Args:
        directory: for the state, the token, the credentials and the S3 server's data; for this user only.
        count: nodes, 1 to 9; the first one is the head.
        namespaces: whether nodes have network namespaces; by default if this user and machine can have them.
        timeout: seconds until all nodes must be alive.
        through: from the S3 server to the endpoint that nodes and users get, where something stands between them.

    Raises:
        UserError: a cluster of another size runs, namespaces are not possible, a node does not start.
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
            _bring_up(directory, state, time.monotonic() + timeout, through)
        except BaseException:
            _clean_up(directory)
            raise
        return state, False


def down(directory: Path) -> bool:
    """Ends all that belongs to the cluster, and keeps the S3 server's data. False if there was nothing."""
    directory = directory.resolve()
    if not directory.exists():
        return False
    with _locked(directory):
        found = _clean_up(directory)
        _change_owner(directory)
        return found


def status(directory: Path) -> State | None:
    """The cluster; None unless all nodes and the S3 server run."""
    state = read_state(directory)
    if state is None or server.status(directory / "store") is None:
        return None
    return state if all(is_alive(state.starters.get(node.number)) for node in state.nodes) else None


def kill_node(directory: Path, number: int) -> None:
    """Kills all processes of a node at once, as if its machine were gone."""
    directory = directory.resolve()
    with _locked(directory):
        state = _running(directory)
        end_processes(state, state.nodes[number - 1])


def return_node(directory: Path, number: int, timeout: float = 60) -> None:
    """Starts a killed node again and waits for it. Raises UserError if it is not alive in time."""
    directory = directory.resolve()
    with _locked(directory):
        state = _running(directory)
        started = {node: _start(node, directory, state) for node in state.nodes if node.number == number}
        token = (directory / "token").read_text()
        _wait(lambda: nodes.alive_addresses(state, token), started, state, time.monotonic() + timeout)


def _running(directory: Path) -> State:
    state = read_state(directory)
    if state is None:
        raise UserError(f"{directory}: no cluster runs here")
    return state


def _start(node: Node, directory: Path, state: State) -> subprocess.Popen[bytes]:
    environment = files.without_foreign_settings() | files.environment(directory, state)
    process = nodes.start_node(node, state, environment)
    state.starters[node.number] = (process.pid, start_time(process.pid) or 0)
    write_state(directory, state)
    return process


def _bring_up(
    directory: Path, state: State, deadline: float, through: Callable[[server.StoreHandle], str] | None
) -> None:
    if state.bridge:
        network.make_network(state)
        firewall.open_bridge(state)
    state.ports = _choose_ports(state)
    state.sessions.mkdir(mode=0o700)
    store = server.up(directory / "store", host=state.gateway, timeout=deadline - time.monotonic())
    server.make_buckets(store, BUCKETS)
    state.endpoint = store.endpoint if through is None else through(store)
    for node in state.nodes:
        firewall.check_reaches(state, node, state.endpoint.removeprefix("http://"))
    files.write_files(directory, state, store)
    _hand_over(directory, state)
    started = {state.head: _start(state.head, directory, state)}
    _wait(lambda: {state.head.address} if _accepts_connections(state) else set(), started, state, deadline)
    for node in state.nodes[1:]:
        firewall.check_reaches(state, node, f"{state.head.address}:{state.ports['gcs']}")
        started[node] = _start(node, directory, state)
    token = (directory / "token").read_text()
    _wait(lambda: nodes.alive_addresses(state, token), started, state, deadline)


def _wait(
    present: Callable[[], set[str]], started: dict[Node, subprocess.Popen[bytes]], state: State, deadline: float
) -> None:
    """Waits until all started nodes are present. Raises UserError if one ends, or is not present in time."""
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


def _accepts_connections(state: State) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex((state.head.address, state.ports["gcs"])) == 0


def _choose_ports(state: State) -> dict[str, int]:
    """Ports of the nodes. In a namespace every port is free."""
    agents = {node.agent: _FIRST_AGENT + node.number for node in state.nodes}
    ports = _PORTS | agents
    if state.bridge:
        return ports
    hosts = dict.fromkeys(_PORTS, state.head.address) | {node.agent: node.address for node in state.nodes}
    return choose_ports(list(ports), ports, {}, hosts)


def _hand_over(directory: Path, state: State) -> None:
    """Gives the files of nodes and users to the user who called `sudo`, if any."""
    if state.bridge:
        _change_owner(directory, state.sessions)


def _change_owner(*paths: Path) -> None:
    """Gives paths, with all that is in them, to the user who called `sudo`, if any."""
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
    """Makes `directory`, and lets only one `up` or `down` at a time into the block."""
    try:
        new = [path for path in (*reversed(directory.parents), directory) if not path.exists()]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _change_owner(*new)
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
