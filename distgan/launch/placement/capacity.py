"""The nodes of a Ray cluster, and how many workers fit on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from distgan.config.placement import matches

SPOT = {"ray.io/market-type": "spot"}

NOT_SPOT = {"ray.io/market-type": "!spot"}

ACCELERATOR = "accelerator_type:"

# Ray counts in units of 1/10,000.
_UNIT = 1e-4


@dataclass(frozen=True)
class Node:
    """A node's total resources by Ray's names (memory in bytes), and its labels."""

    address: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_spot(self) -> bool:
        return matches(self.labels, SPOT)

    @property
    def accelerators(self) -> list[str]:
        """Ray's names of the types that it has."""
        return [name.removeprefix(ACCELERATOR) for name in self.resources if name.startswith(ACCELERATOR)]


@dataclass(frozen=True)
class Bundle:
    """What a process needs of a node, and the label selectors of the nodes that it may run on."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


def alive_nodes() -> list[Node]:
    """The nodes of the connected cluster that are alive."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(node["NodeManagerAddress"], node["Resources"], node.get("Labels") or {}) for node in nodes if node["Alive"]
    ]


def local_cpus() -> int | None:
    """The processors that this node offers Ray: in a container fewer than the machine has. None for none."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    offered = next(node["Resources"].get("CPU", 0.0) for node in nodes if node["NodeID"] == here)
    return math.ceil(offered) or None


def on_demand_labels(nodes: Sequence[Node]) -> Mapping[str, str]:
    """Selectors of nodes for long-lived processes: no spot nodes, where others have processors."""
    others = any(node.resources.get("CPU", 0.0) for node in nodes if not node.is_spot)
    return NOT_SPOT if others and any(node.is_spot for node in nodes) else {}


class NodeCapacity:
    """What is free on nodes as bundles are placed on them."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._free = [dict(node.resources) for node in nodes]

    def holds(self, index: int, bundle: Bundle) -> int:
        """How many more such bundles fit on a node."""
        if not matches(self._nodes[index].labels, bundle.labels):
            return 0
        free = self._free[index]
        counts = [
            int((free.get(kind, 0.0) + _UNIT / 2) / amount) for kind, amount in bundle.resources.items() if amount
        ]
        return max(0, min(counts, default=0))

    def take(self, index: int, bundle: Bundle, count: int = 1) -> None:
        """Places `count` bundles on a node that has room for them."""
        free = self._free[index]
        for kind, amount in bundle.resources.items():
            if amount:
                free[kind] = free.get(kind, 0.0) - count * amount

    def take_one(self, bundle: Bundle) -> bool:
        """Places a bundle on the first node that has room; whether there is one."""
        index = next((index for index in range(len(self._nodes)) if self.holds(index, bundle)), None)
        if index is not None:
            self.take(index, bundle)
        return index is not None

    def take_group(self, bundle: Bundle, count: int, strategy: str) -> bool:
        """Places the bundles of a group of workers; False, with some of them placed, where not all fit.

        `strategy` is a value of `placement.strategy`.
        """
        places = [self.holds(index, bundle) for index in range(len(self._nodes))]
        if strategy == "strict_pack":
            index = next((index for index, place in enumerate(places) if place >= count), None)
            if index is not None:
                self.take(index, bundle, count)
            return index is not None
        if strategy == "strict_spread":  # from the emptiest nodes, which leaves room for further groups
            chosen = sorted((index for index, place in enumerate(places) if place), key=lambda index: -places[index])
            for index in chosen[:count]:
                self.take(index, bundle)
            return len(chosen) >= count
        for index, place in enumerate(places):
            placed = min(place, count)
            self.take(index, bundle, placed)
            count -= placed
        return count == 0


def missing(nodes: Sequence[Node], bundle: Bundle, workers: int, strategy: str) -> str | None:
    """Why a group of workers does not fit on empty nodes, as text; None where it does."""
    capacity = NodeCapacity(nodes)
    holding = [(node, place) for index, node in enumerate(nodes) if (place := capacity.holds(index, bundle))]
    if NodeCapacity(nodes).take_group(bundle, workers, strategy):
        return None
    wanted = [node for node in nodes if matches(node.labels, bundle.labels)]
    if not nodes:
        return "it has no nodes"
    if not wanted:
        have = _listed(nodes, lambda node: _pairs(node.labels) or "no labels")
        return f"no node has the labels {_pairs(bundle.labels)}; {have}"
    for kind, amount in bundle.resources.items():
        most = max(node.resources.get(kind, 0.0) for node in wanted)
        if most + _UNIT / 2 < amount:
            return _kind_missing(nodes, wanted, kind, amount, most)
    if not holding:
        return f"no node has all of it; {_listed(wanted, lambda node: _amounts(node.resources, bundle.resources))}"
    each = _joined(f"{place} on {node.address}" for node, place in holding)
    if strategy == "strict_pack":
        return f"placement.strategy=strict_pack wants all on one node, and there is room for {each}"
    if strategy == "strict_spread":
        return (
            f"placement.strategy=strict_spread wants {workers} nodes, and {len(holding)} of {len(nodes)} "
            f"{'has' if len(holding) == 1 else 'have'} room for a worker"
        )
    return f"there is room for {sum(place for _, place in holding)} of {workers} workers: {each}"


def amount_text(kind: str, amount: float) -> str:
    """`1 CPU`, `0.5 GPUs`, `4 GB of memory`, `accelerator H100`."""
    if kind == "memory":
        return f"{amount / 1e9:g} GB of memory"
    if kind.startswith(ACCELERATOR):
        return f"accelerator {kind.removeprefix(ACCELERATOR)}"
    plural = "s" if kind in {"CPU", "GPU"} and amount != 1 else ""
    return f"{amount:g} {kind}{plural}"


def _kind_missing(nodes: Sequence[Node], wanted: Sequence[Node], kind: str, amount: float, most: float) -> str:
    """The text where no node that the labels select has enough of a resource."""
    among = "no node" if len(wanted) == len(nodes) else "none of the nodes with the labels"
    if kind.startswith(ACCELERATOR):
        found = sorted({name for node in wanted for name in node.accelerators})
        return f"{among} has {amount_text(kind, amount)}; there {_is(found)}"
    has = f"the most is {amount_text(kind, most)}" if most else "none has any"
    return f"{among} has {amount_text(kind, amount)}; {has}"


def _is(found: Sequence[str]) -> str:
    if not found:
        return "is none"
    return f"{'is' if len(found) == 1 else 'are'} {', '.join(found)}"


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items() if key != "ray.io/node-id")


def _amounts(has: Mapping[str, float], wanted: Mapping[str, float]) -> str:
    return " and ".join(amount_text(kind, has.get(kind, 0.0)) for kind in wanted if not kind.startswith(ACCELERATOR))


def _listed(nodes: Sequence[Node], describe: Callable[[Node], str]) -> str:
    return "the nodes have: " + _joined(f"{node.address} {describe(node)}" for node in nodes)


def _joined(words: Iterable[str]) -> str:
    """At most five of the texts, separated by commas."""
    every = list(words)
    return ", ".join(every[:5]) + (f" and {len(every) - 5} more" if len(every) > 5 else "")
