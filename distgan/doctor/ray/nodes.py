"""Examines the nodes of the connected cluster, all at the same time, each within a time limit."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from distgan.doctor.data_access import MARK
from distgan.doctor.facts import Blocked, DataRead, Node, StorageUse
from distgan.doctor.network import compare_clocks
from distgan.doctor.ray.actors import OBJECT_BYTES, NoAnswer, Prober, gather, start_on
from distgan.errors import UserError
from distgan.storage.storage import Storage

_MACHINE_S = 90.0

_CALL_S = 15.0

_TRANSFER_S = 120.0

_HEAD = "node:__internal_head__"

_NAMED = ("CPU", "GPU", "memory", "object_store_memory")

# How many other nodes each node tries to reach: the next ones in a ring.
_MOST_TARGETS = 16

# Ray's reasons for an intended end of a node: it was stopped, or idle.
_INTENDED_ENDS = {1, 4}


@dataclass(frozen=True, eq=False)
class ProbedNode:
    """A node, its id in Ray, and the actor on it, None if it does not answer. Compared by identity."""

    id: str
    node: Node
    prober: Any | None = None


def find_nodes() -> list[ProbedNode]:
    """All nodes: living ones with the facts of their machine, and dead ones unless they were stopped on purpose."""
    table: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    living = [entry for entry in table if entry["Alive"]]
    addresses = {entry["NodeManagerAddress"] for entry in living}
    dead = [
        ProbedNode(entry["NodeID"], _dead(entry))
        for entry in table
        if not entry["Alive"] and entry["NodeManagerAddress"] not in addresses and not _was_intended(entry)
    ]
    probers = {entry["NodeID"]: start_on(entry["NodeID"], Prober, entry["NodeManagerAddress"]) for entry in living}
    results = gather({name: prober.machine.remote() for name, prober in probers.items()}, _MACHINE_S)
    found = [_probed(entry, probers[entry["NodeID"]], results[entry["NodeID"]]) for entry in living]
    return sorted(found, key=lambda one: (not one.node.head, one.node.address)) + dead


def add_clocks(probed: list[ProbedNode]) -> list[ProbedNode]:
    """Adds each node's clock. Asks one node after the other: a busy process answers late."""

    def clock(one: ProbedNode) -> Node:
        def ask() -> float:
            now: Any = ray.get(one.prober.now.remote(), timeout=_CALL_S)  # type: ignore[union-attr]
            return float(now)

        try:
            return replace(one.node, clock=compare_clocks(ask))
        except RayError:
            return one.node

    return [replace(one, node=clock(one)) if one.prober is not None else one for one in probed]


def add_object_stores(probed: list[ProbedNode]) -> list[ProbedNode]:
    """Adds the seconds that a large object takes through each node's object store."""
    seconds = _ask(probed, "object_store", seconds=_TRANSFER_S)
    return [
        replace(one, node=replace(one.node, object_store_bytes=OBJECT_BYTES, object_store_seconds=seconds[one.id]))
        if isinstance(seconds.get(one.id), float)
        else one
        for one in probed
    ]


def add_data(probed: list[ProbedNode], url: str) -> list[ProbedNode]:
    """Adds how each node reads a part of the data set, all at the same time, as in a run."""
    results = _ask(probed, "data", url, seconds=_TRANSFER_S)
    sources = _ask(probed, "credentials", url, seconds=_CALL_S)
    return [
        replace(
            one,
            node=replace(
                one.node,
                data=_or_problem(DataRead, results[one.id], url),
                credentials=_credentials(one.node, sources[one.id]),
            ),
        )
        if one.id in results
        else one
        for one in probed
    ]


def add_storage(probed: list[ProbedNode], url: str) -> tuple[list[ProbedNode], str | None]:
    """Adds how each node writes, reads and removes objects. Also returns why the driver could not write there."""
    folder = Storage.open(url).child(f"doctor-{uuid.uuid4().hex[:12]}")
    problem: str | None = None
    try:
        folder.prepare()
        folder.write_bytes(MARK, b"of the driver")
    except UserError as error:
        problem = str(error)
    try:
        calls = {
            one.id: one.prober.storage.remote(folder.url, one.id, problem is None)
            for one in probed
            if one.prober is not None
        }
        results = gather(calls, _TRANSFER_S)
        sources = _ask(probed, "credentials", url, seconds=_CALL_S)
    finally:
        with suppress(UserError):
            folder.delete(MARK)
            Storage.open(url).delete(folder.url.rpartition("/")[2])
    found = [
        replace(
            one,
            node=replace(
                one.node,
                storage=_or_problem(StorageUse, results[one.id], url),
                credentials=_credentials(one.node, sources[one.id]),
            ),
        )
        if one.id in results
        else one
        for one in probed
    ]
    return found, problem


def find_blocked(probed: Sequence[ProbedNode]) -> list[Blocked]:
    """Pairs of nodes between which no connection can be opened."""
    asking = [one for one in probed if one.prober is not None]
    if len(asking) < 2:
        return []
    ports = _ask(asking, "listen", seconds=_CALL_S)
    listening = [one for one in asking if isinstance(ports[one.id], int)]
    found = [
        Blocked("every node", one.node.address, "Ray's address of it is not its own (ray start --node-ip-address)")
        for one in asking
        if ports[one.id] is None
    ]
    calls = {}
    for number, one in enumerate(asking):
        others = [other for other in (*asking[number + 1 :], *asking[:number]) if other in listening]
        targets = [(other.node.address, ports[other.id]) for other in others[:_MOST_TARGETS]]
        assert one.prober is not None
        calls[one.node.address] = one.prober.blocked.remote(targets)
    for source, reasons in gather(calls, 2 * _CALL_S).items():
        if isinstance(reasons, dict):
            found += [Blocked(source, target, reason) for target, reason in reasons.items()]
    _ask(asking, "stop_listening", seconds=_CALL_S)
    return found


def _ask(probed: Sequence[ProbedNode], method: str, *arguments: object, seconds: float) -> dict[str, Any]:
    """The results of a prober's method on each node, by the node's id."""
    calls = {one.id: getattr(one.prober, method).remote(*arguments) for one in probed if one.prober is not None}
    return gather(calls, seconds)


def _or_problem(kind: type[Any], result: Any, url: str) -> Any:
    return kind(problem=f"{url}: {result.reason}") if isinstance(result, NoAnswer) else result


def _credentials(node: Node, source: Any) -> str | None:
    return source if isinstance(source, str) else node.credentials


def _probed(entry: dict[str, Any], prober: Any, result: Any) -> ProbedNode:
    node = _node(entry)
    if isinstance(result, NoAnswer):
        return ProbedNode(entry["NodeID"], replace(node, problem=f"cannot be examined: {result.reason}"))
    machine, interface = result
    return ProbedNode(entry["NodeID"], replace(node, machine=machine, interface=interface), prober)


def _node(entry: dict[str, Any]) -> Node:
    resources = entry.get("Resources") or {}
    return Node(
        address=entry["NodeManagerAddress"],
        resources={name: resources[name] for name in _NAMED if name in resources},
        head=_HEAD in resources,
    )


def _dead(entry: dict[str, Any]) -> Node:
    reason = " ".join(str(entry.get("DeathReasonMessage") or "no reason is known").split())
    return replace(_node(entry), alive=False, problem=f"dead: {reason:.200}")


def _was_intended(entry: dict[str, Any]) -> bool:
    return entry.get("DeathReason") in _INTENDED_ENDS
