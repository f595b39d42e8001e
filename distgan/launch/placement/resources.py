"""What of a Ray cluster a run's workers get, and what is left for its evaluations aside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ray.train import ScalingConfig

from distgan.config.placement import PlacementConfig, matches, parse_labels, parse_resources
from distgan.config.schema import EvaluationConfig, ScaleConfig
from distgan.errors import UserError
from distgan.launch.placement.capacity import (
    ACCELERATOR,
    Bundle,
    Node,
    NodeCapacity,
    amount_words,
    living_nodes,
    missing,
)


@dataclass(frozen=True)
class Resources:
    """What each worker gets, and where.

    Attributes:
        worker_cpus: a fraction where there are fewer than workers.
        worker_gpus: 0 without.
        validation_cpus, validation_gpus: of an evaluation aside.
        further: memory in bytes and custom resources of a worker, by Ray's names.
        labels: selectors of the nodes that it may run on.
        strategy: as `placement.strategy`.
        accelerator_type: Ray's name.
        lacking: what the cluster has not yet, in words; empty where all have places.
    """

    worker_cpus: float
    worker_gpus: float = 0.0
    validation_cpus: float = 0.0
    validation_gpus: int = 0
    further: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    strategy: str = "pack"
    accelerator_type: str | None = None
    lacking: str = ""

    @property
    def use_gpu(self) -> bool:
        return self.worker_gpus > 0

    @property
    def backend(self) -> str:
        """How workers talk: NCCL refuses several of them on one GPU."""
        return "nccl" if self.worker_gpus >= 1 else "gloo"

    @property
    def per_worker(self) -> dict[str, float]:
        """As Ray asks for them."""
        gpus = {"GPU": self.worker_gpus} if self.use_gpu else {}
        return {"CPU": self.worker_cpus, **gpus, **self.further}

    @property
    def part(self) -> Bundle:
        """Of a worker, with its kind of accelerator."""
        kind = {f"{ACCELERATOR}{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return Bundle(self.per_worker | kind, self.labels)

    @property
    def validation_part(self) -> Bundle:
        gpus = {"GPU": float(self.validation_gpus)} if self.validation_gpus else {}
        return Bundle({"CPU": self.validation_cpus, **gpus}, self.labels)

    def scaling(self, workers: int) -> ScalingConfig:
        """How Ray Train is to place the workers."""
        return ScalingConfig(
            num_workers=workers,
            use_gpu=self.use_gpu,
            resources_per_worker=self.per_worker,
            placement_strategy=self.strategy.upper(),
            accelerator_type=self.accelerator_type,
            label_selector=dict(self.labels) or None,  # type: ignore[call-arg]
        )

    def words(self) -> str:
        """`1 CPU, 2 GPUs and accelerator H100`."""
        *most, last = [amount_words(kind, amount) for kind, amount in self.part.resources.items()]
        return f"{', '.join(most)} and {last}" if most else last

    def words_of(self, workers: int) -> str:
        """`2 workers with 1 CPU each`."""
        return f"{workers} workers with {self.words()} each" if workers > 1 else f"1 worker with {self.words()}"


def plan_resources(scale: ScaleConfig, evaluation: EvaluationConfig, placement: PlacementConfig) -> Resources:
    """Shares the connected cluster; see `share_nodes`."""
    return share_nodes(living_nodes(), scale, evaluation, placement)


def share_nodes(
    nodes: Sequence[Node], scale: ScaleConfig, evaluation: EvaluationConfig, placement: PlacementConfig
) -> Resources:
    """Shares nodes among a run's workers and its evaluation aside.

    Raises UserError, with what is missing where, for nodes that cannot hold the workers; where `placement.wait` says
    so, or an autoscaler manages the nodes, the workers wait instead, and `lacking` says for what.
    """
    aside = evaluation.processors if evaluation.asynchronous else 0
    wanted = [node for node in nodes if matches(node.labels, parse_labels(placement.labels))]
    gpus = worker_gpus(wanted, scale.device, scale.workers, placement)
    fixed = placed(Resources(0.0, gpus), placement)
    spare_gpus = int(sum(node.resources.get("GPU", 0.0) for node in wanted) - gpus * scale.workers)
    wish = placement.cpus_per_worker
    shares = [wish] if wish is not None else _shares(wanted, scale.workers, aside) or [1.0]

    def with_cpus(worker_cpus: float) -> Resources:
        return replace(
            fixed,
            worker_cpus=worker_cpus,
            validation_cpus=aside_cpus(aside, worker_cpus),
            validation_gpus=1 if aside and fixed.use_gpu and spare_gpus >= 1 else 0,
        )

    for share in shares:
        if _fits(nodes, with_cpus(share), scale.workers):
            return with_cpus(share)
    found = with_cpus(shares[0])
    told = f"the Ray cluster has no place for {found.words_of(scale.workers)}: " + (
        missing(nodes, found.part, scale.workers, found.strategy)
        or f"no node has {amount_words('CPU', found.validation_cpus)} left for the evaluation aside"
    )
    if may_wait(nodes, placement):
        return replace(found, lacking=told)
    raise UserError(
        f"{told}; ask for less (scale.workers, placement.*), or add nodes, or with placement.wait=true wait for them"
    )


def may_wait(nodes: Sequence[Node], placement: PlacementConfig) -> bool:
    """Whether to wait for nodes: as wished, else where nodes are of the groups that an autoscaler makes them in."""
    if placement.wait is not None:
        return placement.wait
    return any("ray.io/node-group" in node.labels for node in nodes)


def placed(resources: Resources, placement: PlacementConfig) -> Resources:
    """With what the configuration says beside processors and GPUs."""
    memory = placement.memory_gb_per_worker
    further = {"memory": memory * 1e9} if memory is not None else {}
    return replace(
        resources,
        further=further | parse_resources(placement.resources_per_worker),
        labels=parse_labels(placement.labels),
        strategy=placement.strategy,
        accelerator_type=placement.accelerator_type,
    )


def worker_gpus(nodes: Sequence[Node], device: str, workers: int, placement: PlacementConfig) -> float:
    """GPUs of each worker: as wished, else one where the nodes have enough of them or the configuration needs them."""
    wish = placement.gpus_per_worker
    if device == "cpu" or wish == 0:
        return 0.0
    if wish is not None:
        return wish
    found = sum(node.resources.get("GPU", 0.0) for node in nodes)
    return 1.0 if found >= workers or device == "cuda" or placement.accelerator_type is not None else 0.0


def aside_cpus(processors: int, worker_cpus: float) -> float:
    """Processors of an evaluation aside; of fractions together no more than one, or whole ones."""
    cpus = processors * min(1.0, worker_cpus)
    return cpus if cpus <= 1 else math.floor(cpus)


def _shares(nodes: Sequence[Node], workers: int, aside: int) -> list[float]:
    """Processors of a worker, the most first: one, or the shares that the nodes can be cut into.

    Rounded down: shares of a processor that are rounded up would not fit beside each other.
    """
    sizes = {node.resources.get("CPU", 0.0) for node in nodes}
    cuts = {min(1.0, size / count) for size in sizes for count in range(1, workers + aside + 1)}
    return sorted({math.floor(cut * 100) / 100 for cut in cuts if cut >= 0.01}, reverse=True)


def _fits(nodes: Sequence[Node], resources: Resources, workers: int) -> bool:
    """Whether the workers find places, and beside them the evaluation aside, wherever it is."""
    if not resources.validation_cpus:
        return NodeCapacity(nodes).take_group(resources.part, workers, resources.strategy)
    for index in range(len(nodes)):
        room = NodeCapacity(nodes)
        if room.holds(index, resources.validation_part):
            room.take(index, resources.validation_part)
            if room.take_group(resources.part, workers, resources.strategy):
                return True
    return False
