"""A cluster from end to end: its nodes, what they reach, what is between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distgan.data.storage import Storage
from distgan.diagnosis.facts import Diagnosis
from distgan.diagnosis.machine import probe_machine
from distgan.launch.cluster import ray_cluster
from distgan.launch.device import cluster_address
from distgan.launch.diagnosis.group import measure_group, plan_group
from distgan.launch.diagnosis.nodes import find_blocked, find_nodes, with_clocks, with_data, with_object_stores
from distgan.launch.diagnosis.nodes import with_storage as with_storages
from distgan.launch.diagnosis.prober import session_folder
from distgan.launch.lost import lost_processes_as_one_line
from distgan.report import words


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
    with ray_cluster(address) as own, lost_processes_as_one_line("the diagnosis", "begins anew"):
        driver = probe_machine(session_folder())
        say("examining the nodes")
        nodes = with_object_stores(with_clocks(find_nodes()))
        problem = None
        if data is not None:
            say(f"reading {data} on {words.plural(len(nodes), 'node')}")
            nodes = with_data(nodes, data)
        if storage is not None:
            say(f"writing to {storage} on {words.plural(len(nodes), 'node')}")
            nodes, problem = with_storages(nodes, storage)
        blocked = find_blocked(nodes)
        plan = None if blocked else plan_group(nodes, questions.workers)
        if plan is not None:
            say(f"summing between {words.plural(len(plan.places), 'worker')} by {plan.backend}")
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
