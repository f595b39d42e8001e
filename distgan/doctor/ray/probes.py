"""The actor that examines the node it is on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distgan.doctor.data_access import credentials_source, read_data, use_storage
from distgan.doctor.facts import DataRead, Machine, StorageUse
from distgan.doctor.machine import probe_machine
from distgan.doctor.network import Listener, blocked_targets
from distgan.launch.placement.network import interface_of
from distgan.launch.ray_internals import session_folder

OBJECT_BYTES = 16 * 2**20

_PUTS = 3


class Prober:
    """Answers the driver's questions about a node."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._listener: Listener | None = None

    def machine(self) -> tuple[Machine, str | None]:
        """And the interface that holds the node's address."""
        return probe_machine(session_folder()), interface_of(self._address)

    def now(self) -> float:
        return time.time()

    def object_store(self) -> float:
        """Median seconds to put an array into Ray's object store and copy it out."""
        array = np.zeros(OBJECT_BYTES, np.uint8)
        return statistics.median(_put_and_get(array) for _ in range(_PUTS))

    def data(self, url: str) -> DataRead:
        return read_data(url)

    def storage(self, url: str, name: str, marked: bool) -> StorageUse:
        return use_storage(url, name, marked)

    def credentials(self, url: str) -> str | None:
        return credentials_source(url)

    def listen(self) -> int | None:
        """The port on the node's address; None where that is not its own."""
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


def start_on(node_id: str, actor: type, *arguments: object, gpus: int = 0) -> Any:
    """A handle to an actor that is on this node or nowhere, and asks for no processors."""
    made: Any = ray.remote(num_cpus=0, num_gpus=gpus)(actor)
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return made.options(scheduling_strategy=strategy).remote(*arguments)


def _put_and_get(array: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    began = time.perf_counter()
    kept = ray.put(array)
    ray.get(kept).copy()
    return time.perf_counter() - began
