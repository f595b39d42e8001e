"""All-reduces between workers on the nodes, by the backend that training would take."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import ray

from distgan.diagnosis.collective import SIZES, time_all_reduces
from distgan.diagnosis.facts import AllReduce, Timing
from distgan.launch.diagnosis.answers import Silence, answers
from distgan.launch.diagnosis.nodes import Probed
from distgan.launch.diagnosis.prober import start_on
from distgan.launch.placement.interfaces import use_interface

_START_S = 90.0
_MEET_S = 30.0
_MEASURE_S = 90.0
_MOST_PAIRS = 8


@dataclass(frozen=True)
class Plan:
    """Backend and the node of each worker."""

    backend: str
    places: tuple[Probed, ...]


class Member:
    """A worker of the group."""

    def __init__(self, address: str) -> None:
        self._address = address
        use_interface(None, address)

    def place(self) -> tuple[str, int]:
        """Where a group can meet whose first worker this is."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        with socket.create_server((self._address, 0), family=family) as free:
            return self._address, free.getsockname()[1]

    def measure(
        self, backend: str, rank: int, size: int, place: tuple[str, int], sizes: Sequence[int]
    ) -> list[float] | str:
        """Seconds of each size, or why there are none."""
        try:
            return time_all_reduces(backend, rank, size, place, _MEET_S, sizes)
        except (RuntimeError, ValueError, OSError) as error:
            return " ".join(str(error).split("\n")[0].split())[:300]


def plan_group(probed: Sequence[Probed], workers: int | None) -> Plan | None:
    """One worker a node by default, and two on a single one; None where no node answers.

    NCCL where there is a GPU for each worker; nodes without GPUs have none then.
    """
    nodes = [one for one in probed if one.prober is not None]
    if not nodes:
        return None
    slots = [node for node in nodes for _ in range(int(node.node.resources.get("GPU", 0)))]
    with_gpus = [node for node in nodes if node in slots]
    count = workers or max(2, len(with_gpus or nodes))
    if len(slots) < count:
        return Plan("gloo", tuple(islice(cycle(nodes), count)))
    places: list[Probed] = []
    for node in islice(cycle(with_gpus), len(slots) * len(with_gpus)):
        if places.count(node) < slots.count(node) and len(places) < count:
            places.append(node)
    return Plan("nccl", tuple(places))


def measure_group(plan: Plan) -> AllReduce:
    """Times them; where the group fails, looks for a pair that fails too."""
    found = _measure(plan, SIZES)
    nodes = list(dict.fromkeys(plan.places))
    if found.problem is None or len(nodes) < 3:
        return found
    first, *others = nodes
    for other in others[:_MOST_PAIRS]:
        pair = _measure(Plan(plan.backend, (first, other)), SIZES[:1])
        if pair.problem is not None:
            return pair
    return found


def _measure(plan: Plan, sizes: Sequence[int]) -> AllReduce:
    addresses = tuple(one.node.address for one in plan.places)
    gpus = int(plan.backend == "nccl")
    members = [start_on(one.id, Member, one.node.address, gpus=gpus) for one in plan.places]
    try:
        met = answers(dict(enumerate(member.place.remote() for member in members)), _START_S)
        absent = [rank for rank, told in met.items() if isinstance(told, Silence)]
        if absent:
            reason = f"the worker on {addresses[absent[0]]} does not start: {met[absent[0]].reason}"
            return AllReduce(plan.backend, addresses, problem=reason)
        calls = {
            rank: member.measure.remote(plan.backend, rank, len(members), met[0], tuple(sizes))
            for rank, member in enumerate(members)
        }
        told = answers(calls, _MEASURE_S)
    finally:
        for member in members:
            ray.kill(member)
    for rank, one in told.items():
        if not isinstance(one, list):
            reason = one.reason if isinstance(one, Silence) else one
            return AllReduce(plan.backend, addresses, problem=f"on {addresses[rank]}: {reason}")
    slowest = [max(told[rank][number] for rank in told) for number in range(len(sizes))]
    return AllReduce(plan.backend, addresses, tuple(map(Timing, sizes, slowest)))
