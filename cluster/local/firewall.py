"""Opens the firewall between the nodes: Docker, for one, filters the bridges of a machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from cluster.local.processes import NAMESPACES
from cluster.local.state import Node, State
from distgan.errors import UserError

# "1" if packets between the ports of a bridge pass through the firewall.
BRIDGES_ARE_FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_SECONDS = 10
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()"


def open_bridge(state: State) -> None:
    """Lets packets between nodes through the firewall, if bridges are filtered."""
    try:
        filtered = BRIDGES_ARE_FILTERED.read_text().strip() == "1"
    except OSError:
        return
    if state.bridge and filtered:
        _iptables("--insert", state.bridge)


def close_bridge(state: State) -> None:
    """Undoes `open_bridge`."""
    if state.bridge:
        _iptables("--delete", state.bridge)


def check_reaches(state: State, node: Node, address: str) -> None:
    """Raises UserError if the node, in its namespace, cannot connect to HOST:PORT."""
    if not node.namespace:
        return
    host, _, port = address.rpartition(":")
    enter = ["nsenter", f"--net={NAMESPACES / node.namespace}", "--"]
    command = [*enter, sys.executable, "-I", "-c", _CONNECT, host, port]
    try:
        reached = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        reached = False
    if not reached:
        raise UserError(
            f"node {node.number} ({node.address}) does not reach {address}: a firewall of this machine drops "
            f"what goes through the bridge {state.bridge}; have it accept {state.network}, or use --no-namespaces"
        )


def _iptables(action: str, bridge: str) -> None:
    if not shutil.which("iptables"):
        return
    rule = ["FORWARD", "--in-interface", bridge, "--out-interface", bridge, "--jump", "ACCEPT"]
    command = ["iptables", "--wait", str(_SECONDS // 2), action, *rule]
    # `check_reaches` shows whether it helped; a missing rule need not be deleted.
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
