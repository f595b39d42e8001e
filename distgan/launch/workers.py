"""A worker of Ray Train."""

from __future__ import annotations

import ray.train
import ray.train.torch

from distgan.world import World


def worker_world() -> World:
    """This worker's place among all of its group."""
    context = ray.train.get_context()
    return World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        local_size=context.get_local_world_size(),
    )
