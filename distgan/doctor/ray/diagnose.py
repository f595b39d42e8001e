"""Diagnoses a cluster: its nodes, their access to data and storage, and all-reduces between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import ray

from distgan.doctor.facts import AllReduce, Diagnosis, Timing
from distgan.doctor.machine import probe_machine
from distgan.doctor.network import SIZES
from distgan.doctor.ray.actors import AllReduceWorker, NoAnswer, gather, start_on
from distgan.doctor.ray.nodes import (
    ProbedNode,
    add_clocks,
    add_data,
    add_object_stores,
    add_storage,
    find_blocked,
    find_nodes,
)
from distgan.launch.cluster import ray_cluster
from distgan.launch.local import cluster_address
from distgan.launch.ray_errors import report_losses
from distgan.launch.ray_internals import session_folder
from distgan.storage.storage import Storage
from distgan.text import plural

_START_S = 90.0

_MEASURE_S = 90.0

_MOST_PAIRS = 8


def diagnose(
    address: str | None,
    *,
    data: str | None = None,
    storage: str | None = None,
    workers: int | None = None,
    log: Callable[[str], None],
) -> Diagnosis:
    """Examines the cluster at `address` or RAY_ADDRESS, or one that is started here.

    Args:
        data, storage: URLs that every node tries to use.
        workers: number of workers of the all-reduces; by default one a node, and two on a single node.
        log: receives a line for each step.

    Raises:
        UserError: an invalid URL, or a cluster that does not answer.
    """
    data = None if data is None else Storage.open(data).url
    storage = None if storage is None else Storage.open(storage).url
    cluster = cluster_address(address)
    log("starting Ray" if cluster is None else f"connecting to Ray at {cluster}")
    with ray_cluster(address) as own, report_losses("the diagnosis", "begins anew"):
        driver = probe_machine(session_folder())
        log("examining the nodes")
        nodes = add_object_stores(add_clocks(find_nodes()))
        storage_problem = None
        if data is not None:
            log(f"reading {data} on {plural(len(nodes), 'node')}")
            nodes = add_data(nodes, data)
        if storage is not None:
            log(f"writing to {storage} on {plural(len(nodes), 'node')}")
            nodes, storage_problem = add_storage(nodes, storage)
        blocked = find_blocked(nodes)
        group = None if blocked else choose_group(nodes, workers)
        if group is not None:
            log(f"all-reduces between {plural(len(group.nodes), 'worker')} by {group.backend}")
        return Diagnosis(
            driver=driver,
            nodes=tuple(one.node for one in nodes),
            own=own,
            data_url=data,
            storage_url=storage,
            storage_problem=storage_problem,
            blocked=tuple(blocked),
            all_reduce=None if group is None else time_group(group),
        )


@dataclass(frozen=True)
class WorkerGroup:
    """Workers of all-reduces: the backend, and the node of each worker by rank."""

    backend: str
    nodes: tuple[ProbedNode, ...]


def choose_group(probed: Sequence[ProbedNode], workers: int | None) -> WorkerGroup | None:
    """One worker a node by default, and two on a single node; None if no node answers.

    The backend is NCCL if there is a GPU for each worker; nodes without GPUs then have no worker.
    """
    nodes = [one for one in probed if one.prober is not None]
    if not nodes:
        return None
    slots = [node for node in nodes for _ in range(int(node.node.resources.get("GPU", 0)))]
    with_gpus = [node for node in nodes if node in slots]
    count = workers or max(2, len(with_gpus or nodes))
    if len(slots) < count:
        return WorkerGroup("gloo", tuple(islice(cycle(nodes), count)))
    chosen: list[ProbedNode] = []
    for node in islice(cycle(with_gpus), len(slots) * len(with_gpus)):
        if chosen.count(node) < slots.count(node) and len(chosen) < count:
            chosen.append(node)
    return WorkerGroup("nccl", tuple(chosen))


def time_group(group: WorkerGroup) -> AllReduce:
    """Times all-reduces of the group. If that fails, looks for a pair of nodes that fails too."""
    found = _time(group, SIZES)
    nodes = list(dict.fromkeys(group.nodes))
    if found.problem is None or len(nodes) < 3:
        return found
    first, *others = nodes
    for other in others[:_MOST_PAIRS]:
        pair = _time(WorkerGroup(group.backend, (first, other)), SIZES[:1])
        if pair.problem is not None:
            return pair
    return found


def _time(group: WorkerGroup, sizes: Sequence[int]) -> AllReduce:
    addresses = tuple(one.node.address for one in group.nodes)
    gpus = int(group.backend == "nccl")
    workers = [start_on(one.id, AllReduceWorker, one.node.address, gpus=gpus) for one in group.nodes]
    try:
        ready = gather(dict(enumerate(worker.rendezvous.remote() for worker in workers)), _START_S)
        for rank, result in ready.items():
            if isinstance(result, NoAnswer):
                reason = f"the worker on {addresses[rank]} does not start: {result.reason}"
                return AllReduce(group.backend, addresses, problem=reason)
        calls = {
            rank: worker.time.remote(group.backend, rank, len(workers), ready[0], tuple(sizes))
            for rank, worker in enumerate(workers)
        }
        seconds = gather(calls, _MEASURE_S)
    finally:
        for worker in workers:
            ray.kill(worker)
    for rank, result in seconds.items():
        if not isinstance(result, list):
            reason = result.reason if isinstance(result, NoAnswer) else result
            return AllReduce(group.backend, addresses, problem=f"on {addresses[rank]}: {reason}")
    slowest = [max(seconds[rank][number] for rank in seconds) for number in range(len(sizes))]
    return AllReduce(group.backend, addresses, tuple(map(Timing, sizes, slowest)))
