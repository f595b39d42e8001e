"""A bridge on this machine, and for each node a network namespace with its own address."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
from pathlib import Path

from cluster.local.processes import NAMESPACES
from cluster.local.state import Node, State
from distgan.errors import UserError

_CANDIDATES = [ipaddress.IPv4Network(f"10.{number}.0.0/24") for number in range(201, 255)]
_SECONDS = 10


def can_have_namespaces() -> bool:
    return os.geteuid() == 0 and all(shutil.which(program) for program in ("ip", "nsenter"))


def with_namespaces(tag: str, count: int) -> State:
    """A cluster in a network that this machine does not use yet."""
    network = _unused_network()
    hosts = [str(host) for host in network.hosts()]
    nodes = [
        Node(number, hosts[9 + number], f"distgan-{tag}-{number}", f"dv{tag}-{number}")
        for number in range(1, count + 1)
    ]
    return State(tag, nodes, hosts[0], str(network), f"dg{tag}")


def on_loopback(tag: str, count: int) -> State:
    """A cluster on the loopback interface, with the addresses from 127.0.0.2 on."""
    return State(tag, [Node(number, f"127.0.0.{1 + number}") for number in range(1, count + 1)], "127.0.0.1")


def make_network(state: State) -> None:
    prefix = state.network.partition("/")[2]
    _ip("link", "add", state.bridge, "type", "bridge")
    _ip("addr", "add", f"{state.gateway}/{prefix}", "dev", state.bridge)
    _ip("link", "set", state.bridge, "up")
    for node in state.nodes:
        _ip("netns", "add", node.namespace)
        _ip("link", "add", node.interface, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
        _ip("link", "set", node.interface, "master", state.bridge, "up")
        _ip("-n", node.namespace, "addr", "add", f"{node.address}/{prefix}", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _ip("-n", node.namespace, "link", "set", interface, "up")


def remove_network(state: State) -> None:
    """Removes what exists of it. Processes in a namespace must have ended: they would keep it."""
    for node in state.nodes:
        # The link first: when its namespace is deleted, it goes at an unknown time.
        if node.interface:
            _delete_link(node.interface)
        if node.namespace and (NAMESPACES / node.namespace).exists():
            _ip("netns", "del", node.namespace)
    if state.bridge:
        _delete_link(state.bridge)


def _delete_link(name: str) -> None:
    link = Path("/sys/class/net", name)
    if link.exists():
        try:
            _ip("link", "del", name)
        except UserError:
            if link.exists():
                raise


def _unused_network() -> ipaddress.IPv4Network:
    routes = json.loads(_ip("-json", "-4", "route", "show", "table", "all"))
    used = [ipaddress.IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    for candidate in _CANDIDATES:
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise UserError("this machine has routes to every network from 10.201.0.0 to 10.254.0.0; use --no-namespaces")


def _ip(*arguments: str) -> str:
    command = ["ip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())
        raise UserError(
            f"{' '.join(command)}: {reason}; cluster/local/up --no-namespaces needs no namespaces"
        ) from None
    return done.stdout
