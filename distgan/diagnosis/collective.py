"""How fast the workers of a process group sum tensors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from distgan.rendezvous import join_store

# Latency; a small network; the gradient of a generator of the presets at 64x64 pixels (14 MB).
SIZES = (4, 2**20, 16 * 2**20)
_REPEATS = {SIZES[0]: 50, SIZES[1]: 20, SIZES[2]: 8}
_WARM_UP = 3


def time_all_reduces(
    backend: str, rank: int, size: int, place: tuple[str, int], seconds: float, sizes: Sequence[int] = SIZES
) -> list[float]:
    """Joins a group of `size` workers at a `place` (host, port) of rank 0, and times all-reduces of so many bytes each.

    Median seconds on this worker of each size. Raises RuntimeError or ValueError where the group does not come about,
    or a sum is wrong; each step has `seconds`.
    """
    device = torch.device("cuda" if backend == "nccl" else "cpu")
    store = join_store(*place, rank, size, seconds)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=seconds))
    try:
        return [_time(bytes_, size, device) for bytes_ in sizes]
    finally:
        dist.destroy_process_group()


def _time(bytes_: int, size: int, device: torch.device) -> float:
    tensor = torch.ones(bytes_ // 4, device=device)
    dist.all_reduce(tensor)
    if not torch.equal(tensor, torch.full_like(tensor, size)):
        raise RuntimeError(f"an all-reduce of {size} ones is {tensor.flatten()[0]:g}")
    tensor.zero_()
    for _ in range(_WARM_UP):
        dist.all_reduce(tensor)
    return statistics.median(_once(tensor) for _ in range(_REPEATS.get(bytes_, 5)))


def _once(tensor: torch.Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began
