"""The nodes of the connected cluster, examined all at the same time, each within a limit."""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from distgan.doctor.data_access import MARK
from distgan.doctor.facts import Blocked, DataRead, Node, StorageUse
from distgan.doctor.network import compare_clocks
from distgan.doctor.ray.probes import OBJECT_BYTES, Prober, start_on
from distgan.errors import UserError
from distgan.storage.storage import Storage

K = TypeVar("K", bound=Hashable)

_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class NoAnswer:
    """There is no answer, and why."""

    reason: str


def answers(asked: Mapping[K, Any], seconds: float) -> dict[K, Any]:
    """What each call has returned, or a Silence where it fails or takes longer than `seconds`."""
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds) if asked else ([], [])
    arrived = set(ready)
    return {key: _answer(call) if call in arrived else _late(seconds) for key, call in asked.items()}


def answer(call: Any, seconds: float) -> Any:
    """Of one call."""
    return answers({0: call}, seconds)[0]


def _late(seconds: float) -> NoAnswer:
    return NoAnswer(f"no answer within {seconds:.0f} s")


def _answer(call: Any) -> Any:
    try:
        return ray.get(call)
    except RayTaskError as error:
        return NoAnswer(_line(error.cause if error.cause is not None else error))
    except RayError as error:
        return NoAnswer(_line(error))


def _line(error: BaseException) -> str:
    """The last words of an error: Ray's carry the remote traceback before them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"[:_MOST_CHARACTERS]


_MACHINE_S = 90.0

_CALL_S = 15.0

_TRANSFER_S = 120.0

_HEAD = "node:__internal_head__"

_NAMED = ("CPU", "GPU", "memory", "object_store_memory")

# Nodes that each one tries to reach; beyond so many, the next ones in a ring.
_MOST_TARGETS = 16

# Ray's reasons of nodes that were meant to leave: ended in order, or idle.
_MEANT_TO_LEAVE = {1, 4}


@dataclass(frozen=True, eq=False)
class ProbedNode:
    """A node, its name in Ray, and the actor on it; None on a node that does not answer. Equal to itself alone."""

    id: str
    node: Node
    prober: Any | None = None


def find_nodes() -> list[ProbedNode]:
    """All nodes: those that answer with what their machine is; dead ones unless they were meant to leave."""
    table: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    living = [entry for entry in table if entry["Alive"]]
    here = {entry["NodeManagerAddress"] for entry in living}
    dead = [
        ProbedNode(entry["NodeID"], _dead(entry))
        for entry in table
        if not entry["Alive"] and entry["NodeManagerAddress"] not in here and not _was_meant(entry)
    ]
    probers = {entry["NodeID"]: start_on(entry["NodeID"], Prober, entry["NodeManagerAddress"]) for entry in living}
    told = answers({name: prober.machine.remote() for name, prober in probers.items()}, _MACHINE_S)
    found = [_probed(entry, probers[entry["NodeID"]], told[entry["NodeID"]]) for entry in living]
    return sorted(found, key=lambda one: (not one.node.head, one.node.address)) + dead


def with_clocks(probed: list[ProbedNode]) -> list[ProbedNode]:
    """One after the other: whoever is busy answers late."""

    def clock(one: ProbedNode) -> Node:
        def ask() -> float:
            told: Any = ray.get(one.prober.now.remote(), timeout=_CALL_S)  # type: ignore[union-attr]
            return float(told)

        try:
            return replace(one.node, clock=compare_clocks(ask))
        except RayError:
            return one.node

    return [replace(one, node=clock(one)) if one.prober is not None else one for one in probed]


def with_object_stores(probed: list[ProbedNode]) -> list[ProbedNode]:
    """Puts a large object into each."""
    told = _ask(probed, "object_store", seconds=_TRANSFER_S)
    return [
        replace(one, node=replace(one.node, object_store_bytes=OBJECT_BYTES, object_store_seconds=told[one.id]))
        if isinstance(told.get(one.id), float)
        else one
        for one in probed
    ]


def with_data(probed: list[ProbedNode], url: str) -> list[ProbedNode]:
    """Each node reads of the data set, all at the same time, as in a run."""
    told = _ask(probed, "data", url, seconds=_TRANSFER_S)
    sources = _ask(probed, "credentials", url, seconds=_CALL_S)
    return [
        replace(
            one,
            node=replace(
                one.node,
                data=_or_problem(DataRead, told[one.id], url),
                credentials=_credentials(one.node, sources[one.id]),
            ),
        )
        if one.id in told
        else one
        for one in probed
    ]


def with_storage(probed: list[ProbedNode], url: str) -> tuple[list[ProbedNode], str | None]:
    """Each node writes, reads and removes objects of its own; and why the driver could not write there."""
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
        told = answers(calls, _TRANSFER_S)
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
                storage=_or_problem(StorageUse, told[one.id], url),
                credentials=_credentials(one.node, sources[one.id]),
            ),
        )
        if one.id in told
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
        Blocked("every node", one.node.address, "Ray's address of it is none of its own (ray start --node-ip-address)")
        for one in asking
        if ports[one.id] is None
    ]
    calls = {}
    for number, one in enumerate(asking):
        others = [other for other in (*asking[number + 1 :], *asking[:number]) if other in listening]
        targets = [(other.node.address, ports[other.id]) for other in others[:_MOST_TARGETS]]
        assert one.prober is not None
        calls[one.node.address] = one.prober.blocked.remote(targets)
    for source, told in answers(calls, 2 * _CALL_S).items():
        if isinstance(told, dict):
            found += [Blocked(source, target, reason) for target, reason in told.items()]
    _ask(asking, "stop_listening", seconds=_CALL_S)
    return found


def _ask(probed: Sequence[ProbedNode], method: str, *arguments: object, seconds: float) -> dict[str, Any]:
    """The answers of the nodes that answer, by their names in Ray."""
    calls = {one.id: getattr(one.prober, method).remote(*arguments) for one in probed if one.prober is not None}
    return answers(calls, seconds)


def _or_problem(kind: type[Any], told: Any, url: str) -> Any:
    return kind(problem=f"{url}: {told.reason}") if isinstance(told, NoAnswer) else told


def _credentials(node: Node, told: Any) -> str | None:
    return told if isinstance(told, str) else node.credentials


def _probed(entry: dict[str, Any], prober: Any, told: Any) -> ProbedNode:
    node = _node(entry)
    if isinstance(told, NoAnswer):
        return ProbedNode(entry["NodeID"], replace(node, problem=f"cannot be examined: {told.reason}"))
    machine, interface = told
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


def _was_meant(entry: dict[str, Any]) -> bool:
    return entry.get("DeathReason") in _MEANT_TO_LEAVE
