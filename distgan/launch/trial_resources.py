"""How many trials of a search a cluster holds at once, and what each of their workers gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from distgan.errors import UserError
from distgan.launch.resources import Resources

# Of the actor that follows a trial's run; Tune refuses 0.
TRIAL_CPUS = 0.02


@dataclass(frozen=True)
class Wish:
    """What a user asks for; None is to be chosen.

    Attributes:
        workers: of each trial.
        aside: processors of an asynchronous evaluation; 0 without.
        device: as `scale.device`.
        concurrent: trials at once; `most` is how many there may be at all.
        cpus, gpus: of each worker, fractions too.
    """

    workers: int = 1
    aside: int = 0
    device: str = "auto"
    concurrent: int | None = None
    most: int = 1
    cpus: float | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class TrialShare:
    """What trials get.

    Attributes:
        concurrent: how many run at once.
        runs_a_host: how many share a host's processors, at most.
    """

    resources: Resources
    concurrent: int
    runs_a_host: int


def share_cluster(wish: Wish) -> TrialShare:
    """Of the connected cluster. Raises UserError, with the sum, where the trials would not fit beside each other."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return share_nodes([node["Resources"] for node in nodes if node["Alive"]], wish)


def share_nodes(nodes: Sequence[Mapping[str, float]], wish: Wish) -> TrialShare:
    """As `share_cluster`, of nodes with so much `CPU` and `GPU` each."""
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    per_worker_gpus = _worker_gpus(wish, gpus)
    if wish.concurrent is not None:
        share = _share(nodes, wish, per_worker_gpus, wish.concurrent)
        if not _fits(nodes, wish, share, wish.concurrent):
            raise UserError(_too_many(nodes, wish, share, wish.concurrent))
        return TrialShare(share, wish.concurrent, _runs_a_host(nodes, wish.concurrent))
    for concurrent in range(_at_most(nodes, wish, per_worker_gpus), 0, -1):
        share = _share(nodes, wish, per_worker_gpus, concurrent)
        if _fits(nodes, wish, share, concurrent):
            return TrialShare(share, concurrent, _runs_a_host(nodes, concurrent))
    raise UserError(_too_many(nodes, wish, _share(nodes, wish, per_worker_gpus, 1), 1))


def _runs_a_host(nodes: Sequence[Mapping[str, float]], concurrent: int) -> int:
    """Spread evenly over the nodes that have processors."""
    return math.ceil(concurrent / sum(node.get("CPU", 0.0) > 0 for node in nodes))


def _worker_gpus(wish: Wish, gpus: float) -> float:
    """GPUs of each worker: where one trial at least can have them."""
    wanted = wish.gpus if wish.gpus is not None else 1.0
    if wish.device == "cpu" or wanted == 0:
        return 0.0
    if gpus >= wanted * wish.workers:
        return wanted
    if wish.device == "cuda" or wish.gpus is not None:
        raise UserError(
            f"{_workers(wish)} a trial with {wanted:g} GPUs each are {wanted * wish.workers:g} GPUs, and the Ray "
            f"cluster has {gpus:g}; ask for fewer with --workers-per-trial or --gpus-per-worker, or add nodes"
        )
    return 0.0


def _at_most(nodes: Sequence[Mapping[str, float]], wish: Wish, worker_gpus: float) -> int:
    """Trials at once to begin with: one for so many GPUs, or else processors, as its workers take."""
    cpus = sum(node.get("CPU", 0.0) for node in nodes)
    if worker_gpus:
        places = sum(node.get("GPU", 0.0) for node in nodes) / (worker_gpus * wish.workers)
    else:
        share = wish.cpus or 1.0
        places = cpus / (share * wish.workers + min(1.0, share) * wish.aside)
    return max(1, min(int(places), wish.most))


def _share(nodes: Sequence[Mapping[str, float]], wish: Wish, worker_gpus: float, concurrent: int) -> Resources:
    """Of each worker, where so many trials run at once: a processor, or the share of one that there is."""
    cpus = sum(node.get("CPU", 0.0) for node in nodes) - concurrent * TRIAL_CPUS
    each = cpus / (concurrent * (wish.workers + wish.aside))
    share = wish.cpus if wish.cpus is not None else max(0.0, math.floor(min(1.0, each) * 100) / 100)
    aside = wish.aside * min(1.0, share)
    aside = aside if aside <= 1 else math.floor(aside)
    return Resources(worker_cpus=share, worker_gpus=worker_gpus, validation_cpus=aside)


def _fits(nodes: Sequence[Mapping[str, float]], wish: Wish, share: Resources, concurrent: int) -> bool:
    """Whether so many trials find places on the nodes, the largest parts first."""
    if share.worker_cpus <= 0:
        return False
    free = [{"CPU": node.get("CPU", 0.0), "GPU": node.get("GPU", 0.0)} for node in nodes]
    parts = [share.per_worker] * wish.workers + [{"CPU": TRIAL_CPUS}]
    if wish.aside:
        parts.append({"CPU": share.validation_cpus})
    for part in sorted(parts * concurrent, key=lambda one: (-one.get("GPU", 0.0), -one["CPU"])):
        place = next((node for node in free if all(node[kind] + 1e-9 >= part[kind] for kind in part)), None)
        if place is None:
            return False
        for kind, amount in part.items():
            place[kind] -= amount
    return True


def _too_many(nodes: Sequence[Mapping[str, float]], wish: Wish, share: Resources, concurrent: int) -> str:
    total = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    needs = replace(share, worker_cpus=max(share.worker_cpus, 0.01)).per_worker
    wanted = {kind: concurrent * wish.workers * amount for kind, amount in needs.items()}
    wanted["CPU"] += concurrent * (share.validation_cpus + TRIAL_CPUS)
    sums = " and ".join(f"{amount:g} {kind}s" for kind, amount in wanted.items())
    has = " and ".join(f"{total[kind]:g} {kind}s" for kind in wanted)
    each = " and ".join(f"{amount:g} {kind}s" for kind, amount in needs.items())
    return (
        f"{concurrent} {'trial' if concurrent == 1 else 'trials'} at once of {_workers(wish)} with {each} each need "
        f"{sums} in all, and the Ray cluster has {has} on {len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}; "
        f"lower --concurrent, --workers-per-trial, --cpus-per-worker or --gpus-per-worker, or add nodes"
    )


def _workers(wish: Wish) -> str:
    return f"{wish.workers} {'worker' if wish.workers == 1 else 'workers'}"
