"""Waits until a Ray cluster has NODES nodes: `wait_for_nodes.py HOST:PORT NODES PROCESS`.

Exit code 1 and one line if they do not join in time, or if the process that starts them has ended.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

_TIMEOUT_S = 180.0


def main() -> None:
    address, nodes, process = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    deadline = time.monotonic() + _TIMEOUT_S

    def holds(condition: Callable[[], bool]) -> bool:
        """Whether the condition becomes true in time, while the process that starts the nodes lives."""
        while not condition():
            if time.monotonic() > deadline or not Path("/proc", process).exists():
                return False
            time.sleep(1)
        return True

    if not holds(lambda: _listens(address)):
        sys.exit(f"Ray at {address}: the head does not come; see the lines above, and DISTGAN_INTERFACE")
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)

    def alive() -> int:
        return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]

    if not holds(lambda: alive() >= nodes):
        sys.exit(f"Ray at {address}: {alive()} of {nodes} nodes came; see the lines above, and DISTGAN_INTERFACE")


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
