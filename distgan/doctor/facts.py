"""What a diagnosis finds out about a cluster: plain values, no judgement. Bytes and seconds unless a name says else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Processors:
    """`present` in the machine; `usable` by this process, where containers give fractions; busy ones of late."""

    present: int
    usable: float
    load: float


@dataclass(frozen=True)
class Space:
    """Of a memory or a file system."""

    total: int
    free: int


@dataclass(frozen=True)
class Gpus:
    """The NVIDIA GPUs of a machine.

    Attributes:
        names: as the driver calls them; none without a working driver.
        driver: its version.
        on_bus: how many the PCI bus has, driver or not.
        torch_cuda: the CUDA version that torch was built with, None for a build without.
        torch_sees: how many torch can use.
        problem: why the driver's own tool does not answer, where it is installed.
    """

    names: tuple[str, ...] = ()
    memory: tuple[int, ...] = ()
    driver: str | None = None
    on_bus: int = 0
    torch_cuda: str | None = None
    torch_sees: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Machine:
    """What a process finds around it.

    Attributes:
        versions: of Python, distgan and the libraries that must agree, and of the kernel.
        shared_memory: /dev/shm, where there is one.
        session: the file system of Ray's session folder.
    """

    host: str
    versions: Mapping[str, str]
    processors: Processors
    memory: Space
    gpus: Gpus
    shared_memory: Space | None = None
    session: Space | None = None


@dataclass(frozen=True)
class DataRead:
    """A part of a data set as one process reads it; `problem` in place of the rest where it cannot."""

    problem: str | None = None
    hash: str = ""
    read_bytes: int = 0
    read_seconds: float = 0.0
    images: int = 0
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class StorageUse:
    """Objects that one process wrote under a storage URL, read again and removed; `problem` where it could not.

    Attributes:
        latency: median of reading a small object.
        sees_mark: whether it sees what the driver wrote there; None where the driver could not.
    """

    problem: str | None = None
    size: int = 0
    write_seconds: float = 0.0
    read_seconds: float = 0.0
    latency: float = 0.0
    sees_mark: bool | None = None


@dataclass(frozen=True)
class Clock:
    """How far a clock is ahead of the driver's, known to ± `uncertainty`; `round_trip` is the fastest of a call."""

    ahead: float
    uncertainty: float
    round_trip: float


@dataclass(frozen=True)
class Node:
    """A node of the cluster. What could not be found out is None.

    Attributes:
        resources: what Ray was told that it has: CPU, GPU, object_store_memory.
        problem: why it cannot be examined: dead, or no answer.
        interface: the network interface that holds its address.
        credentials: where its AWS credentials come from, in botocore's words, never what they are.
        object_store_seconds: to put `object_store_bytes` into Ray's object store and take them out.
    """

    address: str
    resources: Mapping[str, float] = field(default_factory=dict)
    alive: bool = True
    head: bool = False
    problem: str | None = None
    machine: Machine | None = None
    clock: Clock | None = None
    interface: str | None = None
    credentials: str | None = None
    data: DataRead | None = None
    storage: StorageUse | None = None
    object_store_bytes: int = 0
    object_store_seconds: float | None = None


@dataclass(frozen=True)
class Blocked:
    """A process on `source` cannot open a connection to a port on `target`."""

    source: str
    target: str
    reason: str


@dataclass(frozen=True)
class Timing:
    """An all-reduce of so many bytes a worker, the median of several, on the slowest worker."""

    bytes: int
    seconds: float

    def bus_bytes_per_second(self, workers: int) -> float:
        """What every link carries in a ring: each worker sends and receives 2 (W - 1) / W of the bytes."""
        return 2 * (workers - 1) / workers * self.bytes / self.seconds


@dataclass(frozen=True)
class AllReduce:
    """Between workers, each given by its node's address; `problem` where it did not come about."""

    backend: str
    workers: tuple[str, ...]
    timings: tuple[Timing, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All that was found.

    Attributes:
        driver: the machine that asked.
        own: whether the cluster was started for this, on this machine.
        storage_problem: why the driver itself cannot use the storage.
    """

    driver: Machine
    nodes: tuple[Node, ...]
    own: bool = False
    data_url: str | None = None
    storage_url: str | None = None
    storage_problem: str | None = None
    blocked: tuple[Blocked, ...] = ()
    all_reduce: AllReduce | None = None
