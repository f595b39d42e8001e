"""What a user is told of where a run's processes will be, and of workers that wait for a place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import ray
from ray.util import placement_group_table

from distgan.launch.mailbox import Background
from distgan.launch.placement.capacity import amount_words, living_nodes, staying
from distgan.launch.placement.resources import Resources
from distgan.launch.ray_internals import kill_train_controllers


def waiting(resources: Resources) -> list[str]:
    """A line where workers wait for nodes."""
    if not resources.lacking:
        return []
    return [f"waiting for nodes: {resources.lacking}; Ctrl-C ends the wait"]


def on_spot() -> list[str]:
    """A line where this process, which a run dies with, is on a node that may be taken away."""
    here = ray.get_runtime_context().get_node_id()
    found = [node.address for node in living_nodes() if node.is_spot and node.labels.get("ray.io/node-id") == here]
    return [
        f"this process is on the spot node {address}, and the run ends with it; start it on a node that stays"
        for address in found
    ]


def trials_on_spot() -> list[str]:
    """A line where trials have no node to run on that stays."""
    nodes = living_nodes()
    if not any(node.is_spot for node in nodes) or staying(nodes):
        return []
    return ["all nodes with processors are spot nodes: a trial whose node is taken goes on from its last checkpoint"]


_FIRST_LOOK_S = 10.0

_LOOK_S = 5.0

_GIVING_UP_S = 30.0

_POLL_S = 0.5

_PENDING = {"PENDING", "RESCHEDULING"}


class Waiting:
    """Looks now and then whether a run's workers wait for a place.

    Args:
        resources: of each worker; where the cluster lacks some altogether, that has been said already.
        workers: how many.
        say: hears of it once.

    Attributes:
        waits: whether they did at the last look.
    """

    def __init__(self, resources: Resources, workers: int, say: Callable[[str], object]) -> None:
        self._part, self._workers, self._say = resources.part.resources, workers, say
        self._next = time.monotonic() + _FIRST_LOOK_S
        self._told = self.waits = bool(resources.lacking)

    def look(self) -> None:
        """To be called until the workers have started."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOOK_S
        self.waits = self._pending()
        if self.waits and not self._told:
            self._told = True
            everything: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            self._say(waiting_words(self._part, self._workers, everything, free))

    def _pending(self) -> bool:
        """Whether Ray has not placed a group of such workers yet."""
        return any(
            group["state"] in _PENDING
            and len(group["bundles"]) == self._workers
            and all(bundle.keys() == self._part.keys() for bundle in group["bundles"].values())
            for group in placement_group_table().values()
        )


def give_up(fit: Background) -> None:
    """Ends what Ray Train has of this driver's runs until `fit` has ended: a driver that leaves Ray before crashes.

    The run may still be starting, so that there is nothing to end yet.
    """
    until = time.monotonic() + _GIVING_UP_S
    while time.monotonic() < until:
        kill_train_controllers()
        if fit.ended(_POLL_S):
            return


def waiting_words(
    part: Mapping[str, float], workers: int, everything: Mapping[str, float], free: Mapping[str, float]
) -> str:
    """What workers lack that need `part` each, of a cluster's `everything` and what of it is `free`."""
    short = [name for name, amount in part.items() if free.get(name, 0.0) + 1e-6 < amount * workers]
    told = []
    for name in short:
        found = f"{free.get(name, 0.0):.4g} of {everything.get(name, 0.0):.4g} are free"
        told.append(f"{amount_words(name, part[name] * workers)} ({found})")
    missing = "; ".join(told) or "nodes with room for each of them"
    return f"waiting: the workers need {missing}; the run begins when other work ends or nodes join"
