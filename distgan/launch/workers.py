"""A worker of Ray Train."""

from __future__ import annotations

import ray.train
import ray.train.torch

from distgan.world import World


def worker_world(runs_a_host: int = 1) -> World:
    """This worker's place among all of its group, where each host has so many groups like it."""
    context = ray.train.get_context()
    return World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        local_size=context.get_local_world_size() * runs_a_host,
    )
