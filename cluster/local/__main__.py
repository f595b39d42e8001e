"""`cluster/local/up`, `down` and `status`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from cluster.local import lifecycle
from cluster.local.processes import memory_of, processes_of
from cluster.local.state import State
from distgan.errors import UserError

_DIRECTORY = Path(__file__).resolve().parents[2] / ".distgan" / "cluster"


def main() -> int:
    # An `up` that is ended early cleans up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = _options()
    try:
        _run(options)
    except UserError as error:
        print(f"cluster/local/{options.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="cluster/local", description="Ray nodes and an S3 server on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", prog="cluster/local/up", help="start the cluster")
    up.add_argument("nodes", metavar="N", type=int, help=f"Ray nodes, 1 to {lifecycle.MOST_NODES}; node 1 is the head")
    up.add_argument("--no-namespaces", action="store_true", help="loopback addresses in place of network namespaces")
    for command, text in (("down", "stop it"), ("status", "print whether it runs")):
        commands.add_parser(command, prog=f"cluster/local/{command}", help=text)
    for subparser in commands.choices.values():
        subparser.add_argument("--dir", type=Path, default=_DIRECTORY, help="state folder, by default %(default)s")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> None:
    if options.command == "up":
        began = time.monotonic()
        state, running = lifecycle.up(options.dir, options.nodes, False if options.no_namespaces else None)
        how = "runs already" if running else f"is up after {time.monotonic() - began:.0f} s"
        print(f"a cluster of {len(state.nodes)} nodes {how}")
        _describe(state, options.dir)
    elif options.command == "down":
        if lifecycle.down(options.dir):
            print("stopped; a shell that has sourced env.sh still has its variables: open a new one")
        else:
            print("was not running")
    else:
        running_state = lifecycle.status(options.dir.resolve())
        if running_state is None:
            print("not running")
        else:
            _describe(running_state, options.dir)
            pids = processes_of(running_state)
            print(f"{len(pids)} processes of Ray take {memory_of(pids) / 1e9:.2f} GB")


def _describe(state: State, directory: Path) -> None:
    for node in state.nodes:
        role = "head" if node.is_head else "worker"
        where = f" in network namespace {node.namespace}" if node.namespace else ""
        print(f"  node {node.number}: {node.address}, {role}{where}")
    print(f"jobs and dashboard: {state.api}, logs of Ray: {state.sessions}")
    print(f"to use it: source {directory / 'env.sh'}")


if __name__ == "__main__":
    sys.exit(main())
