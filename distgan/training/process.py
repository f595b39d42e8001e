"""Settings of a worker's process that its numbers depend on."""

from __future__ import annotations

import os

import torch

from distgan.training.checkpoints import Manifest
from distgan.training.world import World


def choose_threads(wish: int | None, world: World, resumed: Manifest | None) -> int:
    """torch threads of this worker: as wished, else as before a resume, else a fair share of the host.

    Another number of threads adds in another order, so a resume with the same workers keeps it.
    """
    if wish is not None:
        return wish
    if resumed is not None and resumed.workers == world.size:
        return resumed.threads
    return max(1, len(os.sched_getaffinity(0)) // world.local_size)


def prepare_process(threads: int, device: torch.device) -> None:
    """Sets the threads, and has every operation on `device` give the same bits each time."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
