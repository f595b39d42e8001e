"""Actors on the nodes: one examines its node, one takes part in all-reduces; and their results."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distgan.doctor.data_access import credentials_source, read_data, use_storage
from distgan.doctor.facts import DataRead, Machine, StorageUse
from distgan.doctor.machine import probe_machine
from distgan.doctor.network import Listener, blocked_targets, time_all_reduces
from distgan.launch.placement.network import interface_of, use_interface
from distgan.launch.ray_internals import session_folder

OBJECT_BYTES = 16 * 2**20

_PUTS = 3

_JOIN_S = 30.0

_MOST_CHARACTERS = 300

K = TypeVar("K", bound=Hashable)


class Prober:
    """Examines the node that it runs on."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._listener: Listener | None = None

    def machine(self) -> tuple[Machine, str | None]:
        """The machine, and the interface that has the node's address."""
        return probe_machine(session_folder()), interface_of(self._address)

    def now(self) -> float:
        return time.time()

    def object_store(self) -> float:
        """Median seconds to put an array of `OBJECT_BYTES` into Ray's object store and copy it out."""
        array = np.zeros(OBJECT_BYTES, np.uint8)
        return statistics.median(_put_and_get(array) for _ in range(_PUTS))

    def data(self, url: str) -> DataRead:
        return read_data(url)

    def storage(self, url: str, name: str, marked: bool) -> StorageUse:
        return use_storage(url, name, marked)

    def credentials(self, url: str) -> str | None:
        return credentials_source(url)

    def listen(self) -> int | None:
        """Listens on the node's address and returns the port; None if the address is not this node's."""
        try:
            self._listener = Listener(self._address)
        except OSError:
            return None
        return self._listener.port

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def blocked(self, targets: Sequence[tuple[str, int]]) -> dict[str, str]:
        return blocked_targets(targets)


class AllReduceWorker:
    """A worker of a group that times all-reduces."""

    def __init__(self, address: str) -> None:
        self._address = address
        use_interface(None, address)

    def rendezvous(self) -> tuple[str, int]:
        """Host and free port for a group whose rank 0 is this worker."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        with socket.create_server((self._address, 0), family=family) as free:
            return self._address, free.getsockname()[1]

    def time(
        self, backend: str, rank: int, size: int, rendezvous: tuple[str, int], sizes: Sequence[int]
    ) -> list[float] | str:
        """Seconds for each of the sizes in bytes, or the reason for a failure."""
        try:
            return time_all_reduces(backend, rank, size, rendezvous, _JOIN_S, sizes)
        except (RuntimeError, ValueError, OSError) as error:
            return " ".join(str(error).split("\n")[0].split())[:_MOST_CHARACTERS]


def start_on(node_id: str, actor: type, *arguments: object, gpus: int = 0) -> Any:
    """Starts an actor on this node and no other, without reserving processors; returns its handle."""
    made: Any = ray.remote(num_cpus=0, num_gpus=gpus)(actor)
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return made.options(scheduling_strategy=strategy).remote(*arguments)


@dataclass(frozen=True)
class NoAnswer:
    """The result of a call that failed or took too long."""

    reason: str


def gather(calls: Mapping[K, Any], seconds: float) -> dict[K, Any]:
    """The result of each call, or a `NoAnswer` if it fails or takes longer than `seconds`."""
    ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=seconds) if calls else ([], [])
    finished = set(ready)
    late = NoAnswer(f"no answer within {seconds:.0f} s")
    return {key: _result(call) if call in finished else late for key, call in calls.items()}


def _result(call: Any) -> Any:
    try:
        return ray.get(call)
    except RayTaskError as error:
        return NoAnswer(_last_line(error.cause if error.cause is not None else error))
    except RayError as error:
        return NoAnswer(_last_line(error))


def _last_line(error: BaseException) -> str:
    """Kind and last line of an error; in Ray's errors the remote traceback comes before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"[:_MOST_CHARACTERS]


def _put_and_get(array: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    kept = ray.put(array)
    ray.get(kept).copy()
    return time.perf_counter() - began
