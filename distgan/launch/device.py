"""Where the workers of a run will compute, as far as it is known before anything is started."""

from __future__ import annotations

import os

import torch

from distgan.errors import UserError
from distgan.world import choose_device


def cluster_address(address: str | None) -> str | None:
    """The Ray cluster that is asked for: `address` or RAY_ADDRESS; None for one that is started on this machine."""
    address = address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address


def check_device(device: str, workers: int, address: str | None, *, no_ray: bool) -> str:
    """The device of the workers, in words; what a cluster elsewhere has is known when it is asked.

    Raises UserError where `cuda` is wished for on this machine, and it has not the GPUs.
    """
    cluster = None if no_ray else cluster_address(address)
    if device == "cpu":
        return "cpu"
    if cluster is not None:
        wish = "cuda" if device == "cuda" else "cuda or cpu"
        return f"{wish}: whether Ray at {cluster} has a GPU for each worker is known at the start only"
    chosen = choose_device(device, 0).type
    gpus = torch.cuda.device_count()
    if no_ray or chosen == "cpu" or gpus >= workers:
        return chosen
    if device == "cuda":
        raise UserError(
            f"scale.device=cuda with {workers} workers: this machine has {gpus} GPUs, and each worker needs one; "
            f"ask for fewer workers, or use scale.device=auto"
        )
    return "cpu"
