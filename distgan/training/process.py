"""Settings of a worker's process that its numbers depend on."""

from __future__ import annotations

import ctypes
import os
import platform

import torch

from distgan.distributed import Distributed
from distgan.training.checkpoints import Manifest

# Parameters of glibc's mallopt, from its malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def choose_threads(wish: int | None, distributed: Distributed, resumed: Manifest | None) -> int:
    """torch threads of this worker: as wished, else as before a resume, else as OMP_NUM_THREADS says, else a fair
    share of the host.

    Another number of threads adds in another order, so a resume with the same workers keeps it.
    """
    if wish is not None:
        return wish
    if resumed is not None and resumed.workers == distributed.size:
        return resumed.threads
    if distributed.threads is not None:
        return distributed.threads
    processors = len(os.sched_getaffinity(0))
    if distributed.processors is not None:
        processors = min(processors, distributed.processors)
    return max(1, processors // distributed.local_size)


def crowding_load(threads: int, distributed: Distributed) -> float | None:
    """This machine's load, where more is running on it than leaves a processor to each thread of its workers.

    What the start of a run itself adds, up to one, does not count. None also where there is one thread, or a GPU, and
    where this process may use a part of the processors only: the load is that of all.
    """
    processors = len(os.sched_getaffinity(0))
    if threads == 1 or distributed.device.type != "cpu" or processors != os.cpu_count():
        return None
    load = os.getloadavg()[0]
    return load if load > max(0, processors - threads * distributed.local_size) + 1 else None


def prepare_process(threads: int, device: torch.device) -> None:
    """Sets the threads, keeps freed memory, and has every operation on `device` give the same bits each time."""
    torch.set_num_threads(threads)
    _keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def _keep_freed_memory() -> None:
    """Has glibc keep what tensors leave: by default it returns each large one, and every step faults it in again."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 2**26)
