"""Notes on where a run's processes are placed, and on workers that wait for nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import ray
from ray.util import placement_group_table

from distgan.config.scale import ScaleConfig
from distgan.launch.mailbox import Background
from distgan.launch.placement.capacity import alive_nodes, amount_text, missing, on_demand_labels
from distgan.launch.placement.resources import Resources
from distgan.launch.ray_internals import kill_train_controllers


def waiting_notes(resources: Resources) -> list[str]:
    """A note where workers wait for nodes."""
    if not resources.shortage:
        return []
    return [f"waiting for nodes: {resources.shortage}; Ctrl-C ends the wait"]


def spot_notes() -> list[str]:
    """A note where this process, whose end ends the run, is on a spot node."""
    here = ray.get_runtime_context().get_node_id()
    found = [node.address for node in alive_nodes() if node.is_spot and node.labels.get("ray.io/node-id") == here]
    return [
        f"this process is on the spot node {address}, and the run ends with it; start it on a node that is no spot node"
        for address in found
    ]


def trial_spot_notes() -> list[str]:
    """A note where all nodes for trials are spot nodes."""
    nodes = alive_nodes()
    if not any(node.is_spot for node in nodes) or on_demand_labels(nodes):
        return []
    return ["all nodes with processors are spot nodes: a trial that loses its node resumes from its last checkpoint"]


_FIRST_CHECK_S = 10.0

_CHECK_S = 5.0

_GIVING_UP_S = 30.0

_POLL_S = 0.5

_PENDING = {"PENDING", "RESCHEDULING"}


class PlacementWatch:
    """Checks from time to time whether a run's workers wait for resources.

    Args:
        resources: of each worker; a `shortage` has been reported already.
        scale: how many workers there are to be.
        log: receives a line, once, when they wait.

    Attributes:
        waits: whether they waited at the last check.
    """

    def __init__(self, resources: Resources, scale: ScaleConfig, log: Callable[[str], object]) -> None:
        self._resources, self._bundle, self._scale, self._say = resources, resources.bundle.resources, scale, log
        self._next = time.monotonic() + _FIRST_CHECK_S
        self._reported = self.waits = bool(resources.shortage)

    def restart(self) -> None:
        """Watches anew: the workers were lost."""
        self._next = time.monotonic() + _FIRST_CHECK_S
        self._reported = self.waits = False

    def check(self) -> None:
        """Call this until the workers have started."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _CHECK_S
        self.waits = self._pending()
        if self.waits and not self._reported:
            self._reported = True
            total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            self._say(waiting_text(self._bundle, self._scale.fewest, total, free))

    def _pending(self) -> bool:
        """Whether Ray has not placed a group of such workers yet, or not even asked for one that fits nowhere."""
        fewest, most = self._scale.fewest, self._scale.workers
        if self._scale.min_workers is not None:
            return missing(alive_nodes(), self._resources.bundle, fewest, self._resources.strategy) is not None
        return any(
            group["state"] in _PENDING
            and len(group["bundles"]) == most
            and all(bundle.keys() == self._bundle.keys() for bundle in group["bundles"].values())
            for group in placement_group_table().values()
        )


def end_waiting_run(fit: Background) -> None:
    """Ends this driver's Ray Train runs until `fit` has ended; a driver that left Ray earlier would crash.

    Repeated, as a run that is still starting has no controller to end yet.
    """
    until = time.monotonic() + _GIVING_UP_S
    while time.monotonic() < until:
        kill_train_controllers()
        if fit.ended(_POLL_S):
            return


def waiting_text(
    bundle: Mapping[str, float], workers: int, total: Mapping[str, float], free: Mapping[str, float]
) -> str:
    """The resources that workers wait for, as text.

    Each worker needs `bundle`; `free` is the unused part of the cluster's `total`.
    """
    short = [name for name, amount in bundle.items() if free.get(name, 0.0) + 1e-6 < amount * workers]
    facts = []
    for name in short:
        found = f"{free.get(name, 0.0):.4g} of {total.get(name, 0.0):.4g} are free"
        facts.append(f"{amount_text(name, bundle[name] * workers)} ({found})")
    missing = "; ".join(facts) or "nodes with room for each of them"
    return f"waiting: the workers need {missing}; the run starts when other work ends or nodes join"
