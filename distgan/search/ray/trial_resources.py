"""The number of trials that a cluster runs at once, and the resources of their workers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from distgan.config.placement import PlacementConfig, matches, parse_labels
from distgan.errors import UserError
from distgan.launch.placement.capacity import (
    Bundle,
    Node,
    NodeCapacity,
    alive_nodes,
    amount_text,
    missing,
    on_demand_labels,
)
from distgan.launch.placement.resources import Resources, evaluation_cpus, should_wait, with_placement, worker_gpus

# Of the actor that follows a trial's run on Ray Train. Tune refuses 0.
TRIAL_CPUS = 0.02


@dataclass(frozen=True)
class ResourceRequest:
    """The resources that a user requests; None leaves the choice to `share_cluster`.

    Attributes:
        workers: workers of each trial.
        evaluation: processors of its asynchronous evaluation; 0 without one.
        device: as `scale.device`.
        concurrent: trials at once.
        most: upper limit of `concurrent`.
        placement: placement of the workers.
    """

    workers: int = 1
    evaluation: int = 0
    device: str = "auto"
    concurrent: int | None = None
    most: int = 1
    placement: PlacementConfig = field(default_factory=PlacementConfig)

    @property
    def in_actor(self) -> bool:
        """Whether a trial runs in its own actor: the only worker needs no group."""
        return self.workers == 1

    @property
    def actor_cpus(self) -> float:
        """Processors of an actor beside a trial's workers."""
        return 0.0 if self.in_actor else TRIAL_CPUS


@dataclass(frozen=True)
class TrialResources:
    """The resources of a search's trials.

    Attributes:
        concurrent: how many run at once.
        runs_per_host: how many trials share a host's processors at most.
        actor_labels: selectors of the nodes that the trials' own actors run on: no spot nodes, where there are others.
        in_actor: whether trials run in these actors, on the nodes and with the resources of a worker.
    """

    resources: Resources
    concurrent: int
    runs_per_host: int
    actor_labels: Mapping[str, str] = field(default_factory=dict)
    in_actor: bool = False


def share_cluster(request: ResourceRequest) -> TrialResources:
    """Shares the connected cluster (see `share_nodes`)."""
    return share_nodes(alive_nodes(), request)


def share_nodes(nodes: Sequence[Node], request: ResourceRequest) -> TrialResources:
    """Shares nodes among trials. Raises UserError, with the sum, where they do not fit and do not wait."""
    wanted = [node for node in nodes if matches(node.labels, parse_labels(request.placement.labels))]
    fixed = with_placement(Resources(0.0, _worker_gpus(wanted, request)), request.placement)
    at_once = [request.concurrent] if request.concurrent is not None else range(_at_most(wanted, request, fixed), 0, -1)
    for concurrent in at_once:
        share = _share(wanted, request, fixed, concurrent)
        if _fits(nodes, request, share, concurrent):
            runs = _runs_per_host(nodes, concurrent)
            return TrialResources(share, concurrent, runs, on_demand_labels(nodes), request.in_actor)
    concurrent = request.concurrent or 1
    share = _share(wanted, request, fixed, concurrent)
    if not should_wait(nodes, request.placement):
        message = _too_many(nodes, request, share, concurrent)
        raise UserError(f"{message}; lower --concurrent, --workers-per-trial or placement.*, or add nodes")
    share = replace(share, worker_cpus=request.placement.cpus_per_worker or 1.0)
    share = replace(share, shortage=_too_many(nodes, request, share, concurrent))
    return TrialResources(share, concurrent, 1, on_demand_labels(nodes), request.in_actor)


def _runs_per_host(nodes: Sequence[Node], concurrent: int) -> int:
    """Trials of a host, spread evenly over the nodes with processors."""
    return math.ceil(concurrent / sum(node.resources.get("CPU", 0.0) > 0 for node in nodes))


def _worker_gpus(nodes: Sequence[Node], request: ResourceRequest) -> float:
    """GPUs of each worker: as asked, else where at least one trial can have them."""
    return worker_gpus(nodes, request.device, request.workers, request.placement)


def _total(nodes: Sequence[Node], kind: str) -> float:
    return sum(node.resources.get(kind, 0.0) for node in nodes)


def _at_most(nodes: Sequence[Node], request: ResourceRequest, fixed: Resources) -> int:
    """The most trials at once that the GPUs, or else the processors, of the nodes allow."""
    if fixed.use_gpu:
        places = _total(nodes, "GPU") / (fixed.worker_gpus * request.workers)
    else:
        share = request.placement.cpus_per_worker or 1.0
        places = _total(nodes, "CPU") / (share * request.workers + min(1.0, share) * request.evaluation)
    return max(1, min(int(places), request.most))


def _share(nodes: Sequence[Node], request: ResourceRequest, fixed: Resources, concurrent: int) -> Resources:
    """The resources of a trial where so many run at once: a processor for each worker, or a share of one."""
    cpus = _total(nodes, "CPU") - concurrent * request.actor_cpus
    each = cpus / (concurrent * (request.workers + request.evaluation))
    asked = request.placement.cpus_per_worker
    share = asked if asked is not None else max(0.0, math.floor(min(1.0, each) * 100) / 100)
    return replace(fixed, worker_cpus=share, evaluation_cpus=evaluation_cpus(request.evaluation, share))


def _fits(nodes: Sequence[Node], request: ResourceRequest, share: Resources, concurrent: int) -> bool:
    """Whether so many trials fit on the nodes, placed by size, the largest bundles first."""
    if share.worker_cpus <= 0:
        return False
    capacity = NodeCapacity(nodes)
    small = [] if request.in_actor else [Bundle({"CPU": TRIAL_CPUS}, on_demand_labels(nodes))] * concurrent
    evaluation = [share.evaluation_bundle] * (concurrent if request.evaluation else 0)
    evaluation_first = share.evaluation_cpus > share.worker_cpus and not share.use_gpu
    return (
        all(capacity.take_one(bundle) for bundle in (evaluation if evaluation_first else []))
        and all(capacity.take_group(share.bundle, request.workers, share.strategy) for _ in range(concurrent))
        and all(capacity.take_one(bundle) for bundle in ([] if evaluation_first else evaluation))
        and all(capacity.take_one(bundle) for bundle in small)
    )


def _too_many(nodes: Sequence[Node], request: ResourceRequest, share: Resources, concurrent: int) -> str:
    """The text of the error: why not even one trial fits, or what all need and what there is."""
    share = replace(share, worker_cpus=share.worker_cpus or (0.01 if _total(nodes, "CPU") else 1.0))
    trials = "1 trial" if concurrent == 1 else f"{concurrent} trials at once"
    message = f"the Ray cluster has no place for {trials} of {share.describe_workers(request.workers)}: "
    alone = missing(nodes, share.bundle, request.workers, share.strategy)
    if alone is not None:
        return message + alone
    wanted = {kind: concurrent * request.workers * amount for kind, amount in share.per_worker.items()}
    wanted["CPU"] += concurrent * (share.evaluation_cpus + request.actor_cpus)
    return (
        f"{message}{'it needs' if concurrent == 1 else 'they need'} {_and(wanted)} in all, and there are "
        f"{_and({kind: _total(nodes, kind) for kind in wanted})} on {len(nodes)} "
        f"{'node' if len(nodes) == 1 else 'nodes'}"
    )


def _and(amounts: Mapping[str, float]) -> str:
    return " and ".join(amount_text(kind, amount) for kind, amount in amounts.items())
