"""All-reduces by themselves, measured between processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.distributed as dist

_CONTEXT = multiprocessing.get_context("spawn")
SIZES = (8, 2**12, 2**16, 2**18, 2**20, 2**22)
# (seconds of an all-reduce of nothing, bytes a second) by number of workers.
Gloo = dict[int, tuple[float, float]]


def measure_all_reduce(workers: int, repeats: int = 30) -> tuple[float, float]:
    """(seconds of an all-reduce of nothing, bytes a second of its ring) between gloo workers on loopback."""
    with TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(workers):
            ours, theirs = _CONTEXT.Pipe()
            arguments = (rank, workers, str(Path(folder) / "rendezvous"), repeats, theirs)
            processes.append(_CONTEXT.Process(target=_all_reduces, args=arguments, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        seconds = pipes[0].recv()
        for process in processes:
            process.join()
    # Each size weighs alike: small ones tell the base, large ones the bandwidth.
    matrix = [[1 / took, 2 * (workers - 1) / workers * size / took] for size, took in zip(SIZES, seconds, strict=True)]
    (base_s, per_byte), *_ = np.linalg.lstsq(np.array(matrix), np.ones(len(SIZES)), rcond=None)
    return float(base_s), 1 / float(per_byte)


def _all_reduces(rank: int, size: int, rendezvous: str, repeats: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{rendezvous}", timedelta(seconds=120), world_size=size, rank=rank)
    medians = []
    for count in SIZES:
        tensor, seconds = torch.zeros(count // 4), []
        for _ in range(repeats):
            begin = time.perf_counter()
            dist.all_reduce(tensor)
            seconds.append(time.perf_counter() - begin)
        medians.append(statistics.median(seconds))
    pipe.send(medians)
    dist.barrier()
    dist.destroy_process_group()
