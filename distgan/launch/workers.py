"""A worker of Ray Train."""

from __future__ import annotations

from collections.abc import Mapping

import ray.train
import ray.train.torch
import ray.util

from distgan.errors import UserError
from distgan.launch.placement.nodes import processors_here
from distgan.submission.versions import difference
from distgan.world import World


def worker_world(runs_a_host: int = 1, threads: int | None = None) -> World:
    """This worker's place among all of its group, where each host has so many groups like it.

    threads: those that the driver's environment asks for; a worker's own has what Ray has set.
    """
    context = ray.train.get_context()
    return World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        local_size=context.get_local_world_size() * runs_a_host,
        processors=processors_here(),
        threads=threads,
    )


def check_versions(expected: Mapping[str, str]) -> None:
    """Raises UserError where this worker's node has other versions than the driver."""
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    differs = difference(expected, f"the node {node}")
    if differs is not None:
        raise UserError(differs)
