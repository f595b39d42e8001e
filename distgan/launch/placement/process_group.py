"""Ray Train's process group of torch, whose workers first choose their network interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import ray.util
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from distgan.errors import UserError
from distgan.launch.placement.interfaces import use_interface


@dataclass
class InterfaceConfig(TorchConfig):
    """As TorchConfig.

    Attributes:
        interface: of every worker; by default the one that holds its node's address in the cluster.
        board: hears of an interface that a node has not (`launch.board`); `worker_main` then begins nothing.
    """

    interface: str | None = None
    board: Any = None

    @property
    def backend_cls(self) -> type[InterfaceBackend]:
        return InterfaceBackend


class InterfaceBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Makes the process group, unless a worker's node has not the interface."""
        found: list[UserError | None] = worker_group.execute(_choose, backend_config.interface)
        mistakes = [mistake for mistake in found if mistake is not None]
        if mistakes:
            ray.get(backend_config.board.put_mistake.remote(mistakes[0]))
        else:
            super().on_start(worker_group, backend_config)


def _choose(interface: str | None) -> UserError | None:
    """On a worker: the mistake, if there is one."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    try:
        use_interface(interface, address)
    except UserError as error:
        return error
    return None
