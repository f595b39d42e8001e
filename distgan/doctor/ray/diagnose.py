"""A cluster from end to end: its nodes, what they reach, and all-reduces between them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import ray

from distgan.doctor.facts import AllReduce, Diagnosis, Timing
from distgan.doctor.machine import probe_machine
from distgan.doctor.network import SIZES, time_all_reduces
from distgan.doctor.ray.nodes import (
    NoAnswer,
    ProbedNode,
    answers,
    find_blocked,
    find_nodes,
    with_clocks,
    with_data,
    with_object_stores,
)
from distgan.doctor.ray.nodes import with_storage as with_storages
from distgan.doctor.ray.probes import start_on
from distgan.launch.cluster import ray_cluster
from distgan.launch.local import cluster_address
from distgan.launch.placement.network import use_interface
from distgan.launch.ray_errors import report_losses
from distgan.launch.ray_internals import session_folder
from distgan.storage.storage import Storage
from distgan.tracking import formatting

_START_S = 90.0

_MEET_S = 30.0

_MEASURE_S = 90.0

_MOST_PAIRS = 8


@dataclass(frozen=True)
class Plan:
    """Backend and the node of each worker."""

    backend: str
    places: tuple[ProbedNode, ...]


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


def plan_group(probed: Sequence[ProbedNode], workers: int | None) -> Plan | None:
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
    places: list[ProbedNode] = []
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
        absent = [rank for rank, told in met.items() if isinstance(told, NoAnswer)]
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
            reason = one.reason if isinstance(one, NoAnswer) else one
            return AllReduce(plan.backend, addresses, problem=f"on {addresses[rank]}: {reason}")
    slowest = [max(told[rank][number] for rank in told) for number in range(len(sizes))]
    return AllReduce(plan.backend, addresses, tuple(map(Timing, sizes, slowest)))


@dataclass(frozen=True)
class Questions:
    """What is to be found out: whether nodes reach these URLs, and all-reduces between so many workers."""

    data: str | None = None
    storage: str | None = None
    workers: int | None = None


def diagnose(questions: Questions, address: str | None, say: Callable[[str], None]) -> Diagnosis:
    """Of the cluster at `address` or RAY_ADDRESS, or of one that is started here.

    `say` hears what is being done. Raises UserError for URLs that are none, and a cluster that does not answer.
    """
    data = None if questions.data is None else Storage.open(questions.data).url
    storage = None if questions.storage is None else Storage.open(questions.storage).url
    place = cluster_address(address)
    say("starting Ray" if place is None else f"connecting to Ray at {place}")
    with ray_cluster(address) as own, report_losses("the diagnosis", "begins anew"):
        driver = probe_machine(session_folder())
        say("examining the nodes")
        nodes = with_object_stores(with_clocks(find_nodes()))
        problem = None
        if data is not None:
            say(f"reading {data} on {formatting.plural(len(nodes), 'node')}")
            nodes = with_data(nodes, data)
        if storage is not None:
            say(f"writing to {storage} on {formatting.plural(len(nodes), 'node')}")
            nodes, problem = with_storages(nodes, storage)
        blocked = find_blocked(nodes)
        plan = None if blocked else plan_group(nodes, questions.workers)
        if plan is not None:
            say(f"summing between {formatting.plural(len(plan.places), 'worker')} by {plan.backend}")
        return Diagnosis(
            driver=driver,
            nodes=tuple(one.node for one in nodes),
            own=own,
            data_url=data,
            storage_url=storage,
            storage_problem=problem,
            blocked=tuple(blocked),
            all_reduce=None if plan is None else measure_group(plan),
        )
