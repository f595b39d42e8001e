"""The workers of a run and their collective operations. A single worker needs no process group."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distgan.errors import UserError


def join_store(host: str, port: int, rank: int, size: int, timeout_s: float) -> Any:
    """The TCP store of a group of `size` workers at `host`:`port`. Rank 0 serves it and waits for the others.

    The store has no authentication, and torch's own rendezvous listens on all addresses of the machine. This one
    listens on `host` only. It listens on all addresses if `host` is not an address of this machine (as behind network
    address translation), or is a name that resolves to loopback here. Raises OSError or RuntimeError if the workers
    do not connect in time.
    """
    timeout = timedelta(seconds=timeout_s)
    if rank != 0:
        return dist.TCPStore(host, port, size, False, timeout)  # type: ignore[attr-defined]
    listener = _listen(host, port)
    # torch owns the socket from here on.
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, listener.getsockname()[1], size, True, timeout, master_listen_fd=listener.detach()
    )


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    loopback = ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback
    if loopback and host != "localhost" and not _is_address(host):
        return _listen_everywhere(port)
    try:
        return socket.create_server((str(place[0]), port), family=family)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return _listen_everywhere(port)


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


T = TypeVar("T")

_THREADS = "OMP_NUM_THREADS"

_LAUNCH = "start the workers with torchrun, or unset its variables for a single worker"


@dataclass(frozen=True)
class Distributed:
    """This worker's rank among the workers of a run, and its collective operations.

    Attributes:
        size: number of workers.
        local_size: workers on this host.
        processors: processors of this host for its workers; None for all that this process may run on.
        threads: threads per worker that the user's environment requests (see `requested_threads`).
    """

    rank: int
    size: int
    device: torch.device
    local_size: int = 1
    processors: int | None = None
    threads: int | None = None

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_async(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Starts the sum over all workers, in place. The returned function waits for it."""
        if self.size == 1:
            return lambda: tensor
        work = dist.all_reduce(tensor, async_op=True)

        def wait() -> Tensor:
            work.wait()
            return tensor

        return wait

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def from_rank_0(self, action: Callable[[], T]) -> T:
        """Runs `action` on rank 0 and broadcasts its result, or raises its UserError on every rank."""
        result: T | UserError | None = None
        if self.rank == 0:
            try:
                result = action()
            except UserError as error:
                result = error
        result = self.broadcast(result)
        if isinstance(result, UserError):
            raise result
        return cast(T, result)

    def gather(self, value: T) -> list[T]:
        """The values of all workers, in the order of their ranks, on every rank."""
        if self.size == 1:
            return [value]
        values = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: Tensor) -> Tensor | None:
        """The rows (n, d) of all workers, in the order of their ranks, on rank 0; None on the others."""
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        counts[self.rank] = len(rows)
        most = int(self.all_reduce(counts).max())
        padded = torch.zeros(most, rows.shape[1], dtype=rows.dtype, device=self.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(padded, parts)
        return None if parts is None else torch.cat([part[:n] for part, n in zip(parts, counts.tolist(), strict=True)])

    def ddp(self, module: nn.Module) -> nn.Module:
        """`module` with gradients that are averaged over the workers; `module` itself for a single worker.

        Buffers are not broadcast: batch statistics are averaged over the groups (`training.batch_statistics`).
        """
        if self.size == 1:
            return module
        with warnings.catch_warnings():
            # Older torch does not have its successor, `forward_sync_buffers`.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                module,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                # On CPUs an all-reduce costs milliseconds at any size: no small first bucket.
                bucket_cap_mb=None if self.device.type == "cuda" else 25,
            )


def choose_device(configured: str, local_rank: int) -> torch.device:
    """The device of a worker: `auto` is its GPU, if there is one. Raises UserError for `cuda` without a GPU."""
    available = torch.cuda.is_available()
    if configured == "cuda" and not available:
        raise UserError("scale.device=cuda: this machine has no usable GPU; use scale.device=auto or cpu")
    if configured == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def join_torchrun(device: str, timeout_s: float = 600.0, patience_s: float = 0.0) -> Distributed:
    """The workers that torchrun's environment describes; without it, a single worker.

    A collective waits `timeout_s` for other workers, and `patience_s` longer, as one of them may wait for storage.

    Raises UserError for an environment that torchrun would not set, and if the workers do not connect in time.
    """
    check_torchrun()
    size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    chosen = choose_device(device, _number("LOCAL_RANK", 0))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        try:
            # torchrun's own process serves the store of its workers.
            agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            store = None if agents else _store(rank, size, timeout_s)
            dist.init_process_group(
                backend,
                store=store,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=timeout_s + patience_s),
            )
        except (ValueError, OSError, dist.DistError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"WORLD_SIZE={size} is set, but the workers cannot connect: {reason:.300}; {_LAUNCH}"
            ) from None
    return Distributed(rank, size, chosen, _number("LOCAL_WORLD_SIZE", 1), threads=requested_threads())


def requested_threads() -> int | None:
    """The user's OMP_NUM_THREADS; None if it is not set, or not by the user.

    torchrun (for several workers) and Ray (for jobs) set an unset variable to 1. The environment of torchrun's own
    process shows who set it. In a Ray job, a 1 counts as Ray's.
    """
    value = os.environ.get(_THREADS, "").partition(",")[0].strip()
    if not (value.isascii() and value.isdigit() and int(value)):
        return None
    if value == "1" and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return None
    if value == "1" and "TORCHELASTIC_RUN_ID" in os.environ and not _parent_has(_THREADS):
        return None
    return int(value)


def _parent_has(variable: str) -> bool:
    """Whether this process's parent was started with the variable. False if its environment cannot be read."""
    try:
        content = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return False
    return any(entry.startswith(f"{variable}=".encode()) for entry in content.split(b"\0"))


def _store(rank: int, size: int, timeout_s: float) -> Any:
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(size)
    host = "127.0.0.1" if one_machine else os.environ["MASTER_ADDR"]
    return join_store(host, _number("MASTER_PORT", 0), rank, size, timeout_s)


def check_torchrun() -> None:
    """Raises UserError for torchrun variables with which the workers would wait for each other forever."""
    for rank_name, size_name in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        rank, count = _number(rank_name, 0), _number(size_name, 1)
        if rank >= count and (size_name in os.environ or rank_name == "RANK"):
            raise UserError(
                f"{rank_name}={rank} with {size_name}={count}: ranks go from 0 to one less than that; {_LAUNCH}"
            )
    if _number("WORLD_SIZE", 1) == 1:
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set, and {missing[0]} is not; {_LAUNCH}")
    if not 0 < _number("MASTER_PORT", 0) < 65_536:
        raise UserError(f"MASTER_PORT={os.environ['MASTER_PORT']:.40} is not a port; {_LAUNCH}")
    try:
        socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise UserError(f"MASTER_ADDR={os.environ['MASTER_ADDR']:.80}: {reason}; {_LAUNCH}") from None


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, str(default))
    if not (value.isascii() and value.isdigit()):
        raise UserError(f"{variable}={value:.40} is not a whole number; {_LAUNCH}")
    return int(value)
