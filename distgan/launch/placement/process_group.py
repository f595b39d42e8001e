"""torch's process group under Ray Train: workers choose their network interface and listen on no other."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import ray.train
import ray.util
import torch.distributed as dist
from ray.train.torch import TorchConfig, get_device

from distgan.distributed import join_store
from distgan.errors import UserError
from distgan.launch.placement.network import use_interface
from distgan.launch.signals import count_sigterms


@dataclass
class InterfaceConfig(TorchConfig):
    """A TorchConfig with a network interface.

    Attributes:
        interface: of every worker; by default the one with its node's address in the cluster.
        mailbox: takes the error of a node without the interface; `worker_main` then starts nothing.
        keep_on_sigterm: whether SIGTERM ends no worker, but counts in `signals.sigterms`.
    """

    interface: str | None = None
    mailbox: Any = None
    keep_on_sigterm: bool = False

    @property
    def backend_cls(self) -> type[InterfaceBackend]:
        return InterfaceBackend


class InterfaceBackend(TorchConfig().backend_cls):  # type: ignore[misc]  # its on_shutdown leaves the group
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Makes the process group, unless a worker's node lacks the interface. One worker needs none.

        It replaces Ray's own, whose store listens on every address of the first worker's node.
        """
        found: list[UserError | None] = worker_group.execute(_choose, backend_config.interface)
        errors = [error for error in found if error is not None]
        if errors:
            ray.get(backend_config.mailbox.put_error.remote(errors[0]))
            return
        size = len(worker_group)
        worker_group.execute(_set_variables)
        if backend_config.keep_on_sigterm:
            worker_group.execute(count_sigterms)
        if size > 1:
            place = worker_group.execute_single(0, _free_address)
            seconds = backend_config.timeout_s
            joining = [
                worker_group.execute_single_async(rank, _join, backend_config.backend, *place, rank, size, seconds)
                for rank in range(size)
            ]
            ray.get(joining)


def _choose(interface: str | None) -> UserError | None:
    """Runs on a worker; returns the error, if there is one."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    try:
        use_interface(interface, address)
    except UserError as error:
        return error
    return None


def _set_variables() -> None:
    """Sets the variables of torchrun, for libraries that read them."""
    context = ray.train.get_context()
    os.environ |= {
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "ACCELERATE_TORCH_DEVICE": str(get_device()),
    }


def _free_address() -> tuple[str, int]:
    """The address of this worker's node, and a free port of it."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as bound:
        bound.bind(("", 0))
        return address, int(bound.getsockname()[1])


def _join(backend: str, address: str, port: int, rank: int, size: int, timeout_s: float) -> None:
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")  # as Ray does: a hang in NCCL ends the worker
    store = join_store(address, port, rank, size, timeout_s)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout_s))
