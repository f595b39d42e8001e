"""The facts of a diagnosis: plain values, in bytes and seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Processors:
    """Processors `present` in the machine, `usable` by this process (a container may give fractions), and the load."""

    present: int
    usable: float
    load: float


@dataclass(frozen=True)
class Space:
    """Bytes of a memory or a file system."""

    total: int
    free: int


@dataclass(frozen=True)
class Gpus:
    """The NVIDIA GPUs of a machine.

    Attributes:
        names: from the driver; empty without a working driver.
        driver: its version.
        on_bus: how many are on the PCI bus, with or without a driver.
        torch_cuda: the CUDA version that torch was built with; None for a build without CUDA.
        torch_sees: how many torch can use.
        problem: why the driver's tool does not answer, if it is installed.
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
    """The machine of a process.

    Attributes:
        versions: of Python, distgan, libraries that must agree between nodes, and the kernel.
        shared_memory: /dev/shm, if there is one.
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
    """The speed at which a process reads a part of a data set, or the `problem`."""

    problem: str | None = None
    hash: str = ""
    read_bytes: int = 0
    read_seconds: float = 0.0
    images: int = 0
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class StorageUse:
    """How one process wrote, read and removed objects at a storage URL; or the `problem`.

    Attributes:
        latency: median seconds to read a small object.
        sees_mark: whether it sees what the driver wrote there; None if the driver could not write.
    """

    problem: str | None = None
    size: int = 0
    write_seconds: float = 0.0
    read_seconds: float = 0.0
    latency: float = 0.0
    sees_mark: bool | None = None


@dataclass(frozen=True)
class Clock:
    """Seconds that a clock is ahead of the driver's, ± `uncertainty`; `round_trip` is the fastest call."""

    ahead: float
    uncertainty: float
    round_trip: float


@dataclass(frozen=True)
class Node:
    """A node of the cluster. Facts that are not known are None.

    Attributes:
        resources: what it offers to Ray: CPU, GPU, object_store_memory.
        problem: the reason why it is not examined: dead, or no answer.
        interface: the network interface that has its address.
        credentials: the source of its AWS credentials, as botocore calls it; never the credentials.
        object_store_seconds: to put `object_store_bytes` into Ray's object store and get them out.
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
    """An all-reduce of `bytes` a worker: the median of several, on the slowest worker."""

    bytes: int
    seconds: float

    def bus_bytes_per_second(self, workers: int) -> float:
        """The load of every link in a ring, where each worker sends and receives 2 (W - 1) / W of the bytes."""
        return 2 * (workers - 1) / workers * self.bytes / self.seconds


@dataclass(frozen=True)
class AllReduce:
    """All-reduces between workers, each given by its node's address; or the `problem`."""

    backend: str
    workers: tuple[str, ...]
    timings: tuple[Timing, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All facts of a cluster.

    Attributes:
        driver: the machine that runs the diagnosis.
        own: whether the cluster was started for the diagnosis, on this machine.
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
