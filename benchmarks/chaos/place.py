"""Where runs take place: an S3 server behind a proxy, and a cluster of two nodes or this process's children."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.record import FOLDER
from benchmarks.chaos.runs import Process
from cluster.local import files, lifecycle
from cluster.local.processes import NAMESPACES, processes_of
from cluster.local.state import State
from distgan.data.bricks.render import BrickSource
from distgan.data.pack import PackOptions, pack
from distgan.storage.s3_server import server
from distgan.storage.storage import Storage

# The second node, where no command runs.
NODE = 2

_DISK = "48m"

# Of the mode `slow`, after each 4 KiB.
_SLOW_S = 0.03

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass
class Place:
    """A data set, a storage, and where commands run.

    Attributes:
        folder: of logs and of what the runs record.
        environment: variables of the commands.
        state: the cluster, unless all runs are without Ray.
        small_disk: a disk of its own, where this user may have one.
    """

    folder: Path
    proxy: Proxy
    environment: dict[str, str]
    data: str
    storage: str
    state: State | None = None
    small_disk: Path | None = None
    started: list[Process] = field(default_factory=list)

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def options(self) -> list[str]:
        """Where a command trains."""
        if self.state is None:
            return ["--no-ray"]
        address = f"{self.state.head.address}:{self.state.ports['gcs']}"
        return ["placement.strategy=spread", "placement.wait=true", "--address", address]

    def start(self, arguments: list[str], log: Path) -> Process:
        """Starts `distgan` with these arguments; on the cluster's head if there is one."""
        network = None if self.state is None or not self.state.bridge else NAMESPACES / self.state.head.namespace
        process = _CONTEXT.Process(target=_distgan, args=(arguments, log, self.environment, network), daemon=True)
        process.start()
        self.started.append(process)
        return process

    def pids(self, title: str) -> list[int]:
        """Processes of Ray on the cluster with this in their title."""
        assert self.state is not None
        return sorted(pid for pid in processes_of(self.state) if title.encode() in _title(pid))

    def end_all(self) -> None:
        """Kills every command that still runs."""
        for process in self.started:
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, 9)
                process.join(10)


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _distgan(arguments: list[str], log: Path, environment: dict[str, str], network: Path | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(environment)
    if network is not None:
        with network.open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
    sys.argv[1:] = arguments
    from distgan.cli.main import main

    main()


@contextmanager
def place(folder: Path, *, ray: bool, namespaces: bool | None) -> Iterator[Place]:
    """A place with a packed data set; all that it has started ends with it."""
    with ExitStack() as stack:
        # Not paid for anew at each start of a command.
        _CONTEXT.set_forkserver_preload(
            ["distgan.cli.main", "distgan.launch.local", *(["distgan.launch.train"] if ray else [])]
        )
        own = {FOLDER: str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        os.environ.update(own)  # nodes inherit it
        here = _on_cluster(folder, namespaces, stack) if ray else _without_ray(folder, stack)
        stack.callback(here.end_all)
        here.environment |= own
        here.proxy.slow_s = _SLOW_S
        os.environ.update(here.proxy.environment)
        here.small_disk = _small_disk(folder / "disk", stack)
        pack(BrickSource(0, 512, 16, 1), Storage.open(here.data), PackOptions(image_size=16, channels=1))
        yield here


def _without_ray(folder: Path, stack: ExitStack) -> Place:
    handle = server.up(folder / "store")
    stack.callback(server.down, folder / "store")
    server.make_buckets(handle, lifecycle.BUCKETS)
    proxy = Proxy(handle.environment())
    stack.callback(proxy.close)
    environment = files.without_foreign_settings() | handle.environment() | {"AWS_ENDPOINT_URL": proxy.endpoint}
    return Place(folder, proxy, environment, "s3://data/bricks", "s3://runs")


def _on_cluster(folder: Path, namespaces: bool | None, stack: ExitStack) -> Place:
    proxies: list[Proxy] = []

    def through(handle: server.StoreHandle) -> str:
        host = urlsplit(handle.endpoint).hostname
        assert host is not None
        proxies.append(Proxy(handle.environment(), host))
        return proxies[0].endpoint

    stack.callback(lifecycle.down, folder / "cluster")
    state, _ = lifecycle.up(folder / "cluster", 2, namespaces, through=through)
    stack.callback(proxies[0].close)
    cluster = files.environment(folder / "cluster", state)
    environment = files.without_foreign_settings() | cluster
    os.environ.update(cluster)  # Ray reads some when it is imported
    return Place(folder, proxies[0], environment, "s3://data/bricks", "s3://runs", state)


def _small_disk(folder: Path, stack: ExitStack) -> Path | None:
    """A file system of its own in memory; None where this user may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", folder], stderr=subprocess.DEVNULL, check=False
    )
    if mounted.returncode:
        return None
    stack.callback(lambda: subprocess.run(["umount", "--lazy", folder], check=False))
    return folder
