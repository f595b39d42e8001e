"""The parts of a local cluster, recorded before they are made so that they can always be removed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from distgan.errors import UserError
from distgan.storage.local_files import write_private


@dataclass(frozen=True)
class Node:
    """One Ray node.

    Attributes:
        number: from 1; node 1 is the head.
        address: its IPv4 address.
        namespace: its network namespace; empty without namespaces.
        interface: its network interface in the root namespace; empty without namespaces.
    """

    number: int
    address: str
    namespace: str = ""
    interface: str = ""

    @property
    def is_head(self) -> bool:
        return self.number == 1

    @property
    def agent(self) -> str:
        """The name of its agent's port."""
        return f"agent-{self.number}"


@dataclass
class State:
    """A local cluster.

    Attributes:
        tag: eight hexadecimal digits in the names of all its parts.
        nodes: the head first.
        gateway: the address of this machine in the cluster's network, where the S3 server listens.
        network: that network, as `10.201.0.0/24`; empty without namespaces.
        bridge: the network's bridge; empty without namespaces.
        ports: the head's: `gcs` for nodes and drivers, `api` for jobs and the dashboard.
        endpoint: of the S3 server, as nodes and users know it.
        starters: process id and start time of each node's `ray start`, by the node's number.
    """

    tag: str
    nodes: list[Node]
    gateway: str
    network: str = ""
    bridge: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    endpoint: str = ""
    starters: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def api(self) -> str:
        return f"http://{self.head.address}:{self.ports['api']}"

    @property
    def sessions(self) -> Path:
        """Folder of Ray's sessions and logs; short, since paths of Unix sockets have at most 107 characters."""
        return Path("/tmp") / f"distgan-{self.tag}"


def read_state(directory: Path) -> State | None:
    path = directory / "state.json"
    try:
        content = json.loads(path.read_text())
        content["nodes"] = [Node(**node) for node in content["nodes"]]
        content["starters"] = {int(number): tuple(start) for number, start in content["starters"].items()}
        state = State(**content)
        int(state.tag, 16)
        if len(state.tag) != 8 or not state.nodes:
            raise ValueError("no tag or no nodes")
        return state
    except FileNotFoundError:
        return None
    except PermissionError:
        raise UserError(f"{path}: belongs to another user, who made the cluster; use sudo") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as a local cluster's state; restore or remove it") from error


def write_state(directory: Path, state: State) -> None:
    write_private(directory / "state.json", json.dumps(asdict(state), indent=1))
