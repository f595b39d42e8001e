"""Measures between nodes: clocks, connections, the speed of all-reduces."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from distgan.distributed import join_store
from distgan.doctor.facts import Clock


def compare_clocks(ask: Callable[[], float], exchanges: int = 8) -> Clock:
    """Compares another machine's clock with this one's; `ask` returns its seconds since 1970.

    The fastest exchange counts. Its answer was given between request and response, so the middle is wrong by half the
    round trip at most (Mills 1991, section 3).
    """
    found = []
    for _ in range(exchanges):
        began, ours = time.perf_counter(), time.time()
        theirs = ask()
        round_trip = time.perf_counter() - began
        found.append(Clock(theirs - (ours + round_trip / 2), round_trip / 2, round_trip))
    return min(found, key=lambda clock: clock.round_trip)


# Latency; a small network; the gradients of a preset's generator at 64x64 pixels (14 MB).
SIZES = (4, 2**20, 16 * 2**20)

_REPEATS = {SIZES[0]: 50, SIZES[1]: 20, SIZES[2]: 8}

_WARM_UP = 3


def time_all_reduces(
    backend: str, rank: int, size: int, rendezvous: tuple[str, int], seconds: float, sizes: Sequence[int] = SIZES
) -> list[float]:
    """Joins a group of `size` workers at `rendezvous` (host and port of rank 0), and times all-reduces.

    Returns median seconds on this worker for each of `sizes` in bytes. `seconds` limits each step. Raises RuntimeError
    or ValueError if the group fails to join, or a sum is wrong.
    """
    device = torch.device("cuda" if backend == "nccl" else "cpu")
    store = join_store(*rendezvous, rank, size, seconds)
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


_CONNECT_S = 4.0


class Listener:
    """Accepts connections to an address of this node, on a free port, until it is closed.

    Raises OSError if the address is not this node's own.
    """

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, 0), family=family)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.close()


def blocked_targets(targets: Sequence[tuple[str, int]], seconds: float = _CONNECT_S) -> dict[str, str]:
    """The addresses, of (address, port), that accept no connection within `seconds`, and the reasons.

    All are tried at the same time.
    """
    found: dict[str, str] = {}

    def connect(address: str, port: int) -> None:
        try:
            socket.create_connection((address, port), timeout=seconds).close()
        except TimeoutError:
            found[address] = f"no answer within {seconds:g} s"
        except OSError as error:
            found[address] = (error.strerror or type(error).__name__).lower()

    threads = [threading.Thread(target=connect, args=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
