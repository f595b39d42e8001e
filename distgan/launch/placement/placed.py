"""What a user is told, before a run starts, of where its processes are to run."""

from __future__ import annotations

import ray

from distgan.launch.placement.nodes import living_nodes, staying
from distgan.launch.placement.resources import Resources


def waiting(resources: Resources) -> list[str]:
    """A line where workers wait for nodes."""
    if not resources.lacking:
        return []
    return [f"waiting for nodes: {resources.lacking}; Ctrl-C ends the wait"]


def on_spot() -> list[str]:
    """A line where this process, which a run dies with, is on a node that may be taken away."""
    here = ray.get_runtime_context().get_node_id()
    found = [node.address for node in living_nodes() if node.is_spot and node.labels.get("ray.io/node-id") == here]
    return [
        f"this process is on the spot node {address}, and the run ends with it; start it on a node that stays"
        for address in found
    ]


def trials_on_spot() -> list[str]:
    """A line where trials have no node to run on that stays."""
    nodes = living_nodes()
    if not any(node.is_spot for node in nodes) or staying(nodes):
        return []
    return ["all nodes with processors are spot nodes: a trial whose node is taken goes on from its last checkpoint"]
