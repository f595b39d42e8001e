"""Starts a Ray node, and lists the nodes that the head knows."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import urllib.request
from pathlib import Path

from cluster.local.processes import NAMESPACES
from cluster.local.state import Node, State

OBJECT_STORE_BYTES = 100_000_000

# No usage reports, no metrics (their ports need no token; -1 is none), no lower priority for workers.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_worker_maximum_startup_concurrency": "16",
    "RAY_enable_metrics_collection": "0",
    "DASHBOARD_METRIC_PORT": "-1",
}


def owner() -> tuple[int, int] | None:
    """User and group of the nodes: those of the user who called `sudo`; None for the current user."""
    user = os.environ.get("SUDO_UID")
    if os.geteuid() != 0 or not user:
        return None
    return int(user), int(os.environ.get("SUDO_GID", user))


def start_node(node: Node, state: State, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts `ray start` of the node, in its namespace and its own session; it runs until it is killed."""
    log = log_of(node, state)
    command = [*_enter(node), sys.executable, "-m", "ray.scripts.scripts", "start", *_options(node, state)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=state.sessions,
            env=environment | _QUIET | _own_python(environment) | (_home() if node.namespace else {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def log_of(node: Node, state: State) -> Path:
    return state.sessions / f"node-{node.number}.log"


def alive_addresses(state: State, token: str) -> set[str]:
    """Addresses of the nodes that the head reports as alive. Raises OSError or ValueError without an answer."""
    request = urllib.request.Request(f"{state.api}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=5) as reply:
        nodes = json.load(reply)["data"]["summary"]
    return {node["ip"] for node in nodes if node["raylet"].get("state") == "ALIVE"}


def _enter(node: Node) -> list[str]:
    if not node.namespace:
        return []
    who = owner()
    become = [] if who is None else [f"--setuid={who[0]}", f"--setgid={who[1]}"]
    return ["nsenter", f"--net={NAMESPACES / node.namespace}", *become, "--"]


def _own_python(environment: dict[str, str]) -> dict[str, str]:
    """Puts this Python first: jobs call `python`, which must be the one that has Ray."""
    return {"PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])}


def _home() -> dict[str, str]:
    who = owner()
    if who is None:
        return {}
    entry = pwd.getpwuid(who[0])
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def _options(node: Node, state: State) -> list[str]:
    """Options of `ray start`. The last worker is labeled as a spot machine, to try placement."""
    spot = not node.is_head and node.number == len(state.nodes)
    labels = {
        "ray.io/node-group": "head" if node.is_head else "worker",
        "ray.io/market-type": "spot" if spot else "on-demand",
    }
    head, ports = state.head.address, state.ports
    if node.is_head:
        role = ["--head", f"--port={ports['gcs']}", "--include-dashboard=true", f"--dashboard-host={head}",
                f"--dashboard-port={ports['api']}", f"--ray-client-server-port={ports['client']}"]  # fmt: skip
    else:
        role = [f"--address={head}:{ports['gcs']}"]
    return [
        *role,
        "--block",
        f"--node-ip-address={node.address}",
        f"--num-cpus={max(1, len(os.sched_getaffinity(0)) // len(state.nodes))}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--labels={','.join(f'{key}={value}' for key, value in labels.items())}",
        f"--temp-dir={state.sessions / str(node.number)}",
        f"--dashboard-agent-listen-port={ports[node.agent]}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--include-log-monitor=false",
        "--disable-usage-stats",
        *(["--no-monitor"] if node.is_head else []),
    ]
