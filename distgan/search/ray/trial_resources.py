"""How many trials of a search a cluster holds at once, and what each of their workers gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from distgan.config.placement import PlacementConfig, matches, parse_labels
from distgan.errors import UserError
from distgan.launch.placement.capacity import Bundle, Node, NodeCapacity, amount_words, living_nodes, missing, staying
from distgan.launch.placement.resources import Resources, aside_cpus, may_wait, placed, worker_gpus

# Of the actor that follows a trial's run; Tune refuses 0.
TRIAL_CPUS = 0.02


@dataclass(frozen=True)
class ResourceRequest:
    """What a user asks for; None is to be chosen.

    Attributes:
        workers: of each trial.
        aside: processors of an asynchronous evaluation; 0 without.
        device: as `scale.device`.
        concurrent: trials at once; `most` is how many there may be at all.
        placement: of their workers.
    """

    workers: int = 1
    aside: int = 0
    device: str = "auto"
    concurrent: int | None = None
    most: int = 1
    placement: PlacementConfig = field(default_factory=PlacementConfig)


@dataclass(frozen=True)
class TrialShare:
    """What trials get.

    Attributes:
        concurrent: how many run at once.
        runs_a_host: how many share a host's processors, at most.
        actor_labels: selectors of the nodes that trials themselves run on: none that is taken away, where there are
            others.
    """

    resources: Resources
    concurrent: int
    runs_a_host: int
    actor_labels: Mapping[str, str] = field(default_factory=dict)


def share_cluster(wish: ResourceRequest) -> TrialShare:
    """Of the connected cluster; see `share_nodes`."""
    return share_nodes(living_nodes(), wish)


def share_nodes(nodes: Sequence[Node], wish: ResourceRequest) -> TrialShare:
    """Raises UserError, with the sum, where the trials would not fit beside each other and are not to wait."""
    wanted = [node for node in nodes if matches(node.labels, parse_labels(wish.placement.labels))]
    fixed = placed(Resources(0.0, _worker_gpus(wanted, wish)), wish.placement)
    at_once = [wish.concurrent] if wish.concurrent is not None else range(_at_most(wanted, wish, fixed), 0, -1)
    for concurrent in at_once:
        share = _share(wanted, wish, fixed, concurrent)
        if _fits(nodes, wish, share, concurrent):
            return TrialShare(share, concurrent, _runs_a_host(nodes, concurrent), staying(nodes))
    concurrent = wish.concurrent or 1
    share = _share(wanted, wish, fixed, concurrent)
    if not may_wait(nodes, wish.placement):
        told = _too_many(nodes, wish, share, concurrent)
        raise UserError(f"{told}; lower --concurrent, --workers-per-trial or placement.*, or add nodes")
    share = replace(share, worker_cpus=wish.placement.cpus_per_worker or 1.0)
    share = replace(share, lacking=_too_many(nodes, wish, share, concurrent))
    return TrialShare(share, concurrent, 1, staying(nodes))


def _runs_a_host(nodes: Sequence[Node], concurrent: int) -> int:
    """Spread evenly over the nodes that have processors."""
    return math.ceil(concurrent / sum(node.resources.get("CPU", 0.0) > 0 for node in nodes))


def _worker_gpus(nodes: Sequence[Node], wish: ResourceRequest) -> float:
    """GPUs of each worker: as wished, else where one trial at least can have them."""
    return worker_gpus(nodes, wish.device, wish.workers, wish.placement)


def _total(nodes: Sequence[Node], kind: str) -> float:
    return sum(node.resources.get(kind, 0.0) for node in nodes)


def _at_most(nodes: Sequence[Node], wish: ResourceRequest, fixed: Resources) -> int:
    """Trials at once to begin with: one for so many GPUs, or else processors, as its workers take."""
    if fixed.use_gpu:
        places = _total(nodes, "GPU") / (fixed.worker_gpus * wish.workers)
    else:
        share = wish.placement.cpus_per_worker or 1.0
        places = _total(nodes, "CPU") / (share * wish.workers + min(1.0, share) * wish.aside)
    return max(1, min(int(places), wish.most))


def _share(nodes: Sequence[Node], wish: ResourceRequest, fixed: Resources, concurrent: int) -> Resources:
    """Of each worker, where so many trials run at once: a processor, or the share of one that there is."""
    cpus = _total(nodes, "CPU") - concurrent * TRIAL_CPUS
    each = cpus / (concurrent * (wish.workers + wish.aside))
    asked = wish.placement.cpus_per_worker
    share = asked if asked is not None else max(0.0, math.floor(min(1.0, each) * 100) / 100)
    return replace(fixed, worker_cpus=share, validation_cpus=aside_cpus(wish.aside, share))


def _fits(nodes: Sequence[Node], wish: ResourceRequest, share: Resources, concurrent: int) -> bool:
    """Whether so many trials find places on the nodes, the largest parts first."""
    if share.worker_cpus <= 0:
        return False
    room = NodeCapacity(nodes)
    small = [Bundle({"CPU": TRIAL_CPUS}, staying(nodes))] * concurrent
    aside = [share.validation_part] * (concurrent if wish.aside else 0)
    aside_first = share.validation_cpus > share.worker_cpus and not share.use_gpu
    return (
        all(room.take_one(part) for part in (aside if aside_first else []))
        and all(room.take_group(share.part, wish.workers, share.strategy) for _ in range(concurrent))
        and all(room.take_one(part) for part in ([] if aside_first else aside))
        and all(room.take_one(part) for part in small)
    )


def _too_many(nodes: Sequence[Node], wish: ResourceRequest, share: Resources, concurrent: int) -> str:
    """Why not even one trial finds places, or else what they need in all and what there is."""
    share = replace(share, worker_cpus=share.worker_cpus or (0.01 if _total(nodes, "CPU") else 1.0))
    trials = "1 trial" if concurrent == 1 else f"{concurrent} trials at once"
    told = f"the Ray cluster has no place for {trials} of {share.words_of(wish.workers)}: "
    alone = missing(nodes, share.part, wish.workers, share.strategy)
    if alone is not None:
        return told + alone
    wanted = {kind: concurrent * wish.workers * amount for kind, amount in share.per_worker.items()}
    wanted["CPU"] += concurrent * (share.validation_cpus + TRIAL_CPUS)
    return (
        f"{told}{'it needs' if concurrent == 1 else 'they need'} {_and(wanted)} in all, and there are "
        f"{_and({kind: _total(nodes, kind) for kind in wanted})} on {len(nodes)} "
        f"{'node' if len(nodes) == 1 else 'nodes'}"
    )


def _and(amounts: Mapping[str, float]) -> str:
    return " and ".join(amount_words(kind, amount) for kind, amount in amounts.items())
