"""Settings of a worker's process: threads, memory, determinism."""

from __future__ import annotations

import ctypes
import os
import platform
import resource

import torch

from distgan.distributed import Distributed
from distgan.training.manifest import Manifest

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def choose_threads(configured: int | None, distributed: Distributed, resumed: Manifest | None) -> int:
    """Torch threads of this worker.

    In this order: the configured number; that of the checkpoint, if a run resumes with the same number of workers
    (sums are then in the same order); OMP_NUM_THREADS; cores / local workers.
    """
    if configured is not None:
        return configured
    if resumed is not None and resumed.workers == distributed.size:
        return resumed.threads
    if distributed.threads is not None:
        return distributed.threads
    return share_of_processors(distributed)


def share_of_processors(distributed: Distributed) -> int:
    """Processors that this worker may use / workers on this node, at least 1."""
    processors = len(os.sched_getaffinity(0))
    if distributed.processors is not None:
        processors = min(processors, distributed.processors)
    return max(1, processors // distributed.local_size)


def crowding_load(threads: int, distributed: Distributed) -> float | None:
    """This machine's load, if it leaves less than a processor to each thread of its workers; else None.

    A load of up to 1 is that of the start of the run itself. Also None with a single thread, with a GPU, and where this
    process may use only some of the processors, as the load is that of all.
    """
    processors = len(os.sched_getaffinity(0))
    if threads == 1 or distributed.device.type != "cpu" or processors != os.cpu_count():
        return None
    load = os.getloadavg()[0]
    return load if load > max(0, processors - threads * distributed.local_size) + 1 else None


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most memory that this process has had so far, in units of 10^6 bytes: of the host, and of a GPU's tensors."""
    found = {"memory/host_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}  # of KiB
    if device.type == "cuda":
        found["memory/gpu_mb"] = torch.cuda.max_memory_allocated(device)
    return {name: round(size / 1e6, 1) for name, size in found.items()}


def prepare_process(threads: int, device: torch.device, precision: str = "float32") -> None:
    """Sets threads and `training.precision`, keeps freed memory, and makes operations on `device` deterministic."""
    torch.set_num_threads(threads)
    _keep_freed_memory()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        # By default torch takes TF32 in convolutions.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def _keep_freed_memory() -> None:
    """By default glibc returns large blocks to the kernel, and every step page-faults them in again."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 2**26)
