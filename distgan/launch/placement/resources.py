"""The resources of a Ray cluster that a run's workers and its asynchronous evaluation get."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ray.train import ScalingConfig

from distgan.config.placement import PlacementConfig, matches, parse_labels, parse_resources
from distgan.config.scale import ScaleConfig
from distgan.config.schema import EvaluationConfig
from distgan.errors import UserError
from distgan.launch.placement.capacity import (
    ACCELERATOR,
    Bundle,
    Node,
    NodeCapacity,
    alive_nodes,
    amount_text,
    missing,
)


@dataclass(frozen=True)
class Resources:
    """What each worker gets, and where.

    Attributes:
        worker_cpus: a fraction where there are fewer processors than workers.
        worker_gpus: 0 on the CPU.
        evaluation_cpus, evaluation_gpus: of an asynchronous evaluation.
        further: memory in bytes and custom resources of a worker, by Ray's names.
        labels: selectors of the nodes that workers may run on.
        strategy: as `placement.strategy`.
        accelerator_type: Ray's name.
        shortage: what the cluster lacks so far, as text; empty where all workers fit.
    """

    worker_cpus: float
    worker_gpus: float = 0.0
    evaluation_cpus: float = 0.0
    evaluation_gpus: int = 0
    further: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    strategy: str = "pack"
    accelerator_type: str | None = None
    shortage: str = ""

    @property
    def use_gpu(self) -> bool:
        return self.worker_gpus > 0

    @property
    def backend(self) -> str:
        """The backend of the process group: not NCCL for several workers on one GPU, which it refuses."""
        return "nccl" if self.worker_gpus >= 1 else "gloo"

    @property
    def per_worker(self) -> dict[str, float]:
        """What a worker needs, by Ray's names."""
        gpus = {"GPU": self.worker_gpus} if self.use_gpu else {}
        return {"CPU": self.worker_cpus, **gpus, **self.further}

    @property
    def bundle(self) -> Bundle:
        """What a worker needs, with its type of accelerator."""
        kind = {f"{ACCELERATOR}{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return Bundle(self.per_worker | kind, self.labels)

    @property
    def evaluation_bundle(self) -> Bundle:
        gpus = {"GPU": float(self.evaluation_gpus)} if self.evaluation_gpus else {}
        return Bundle({"CPU": self.evaluation_cpus, **gpus}, self.labels)

    def scaling(self, scale: ScaleConfig) -> ScalingConfig:
        """How Ray Train places the workers."""
        return ScalingConfig(
            num_workers=scale.workers if scale.min_workers is None else (scale.min_workers, scale.workers),  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=scale.resize_seconds,  # type: ignore[call-arg]
            use_gpu=self.use_gpu,
            resources_per_worker=self.per_worker,
            placement_strategy=self.strategy.upper(),
            accelerator_type=self.accelerator_type,
            label_selector=dict(self.labels) or None,
        )

    def describe(self) -> str:
        """`1 CPU, 2 GPUs and accelerator H100`."""
        *most, last = [amount_text(kind, amount) for kind, amount in self.bundle.resources.items()]
        return f"{', '.join(most)} and {last}" if most else last

    def describe_workers(self, workers: int) -> str:
        """`2 workers with 1 CPU each`."""
        return f"{workers} workers with {self.describe()} each" if workers > 1 else f"1 worker with {self.describe()}"


def plan_resources(scale: ScaleConfig, evaluation: EvaluationConfig, placement: PlacementConfig) -> Resources:
    """Shares the connected cluster (see `share_nodes`)."""
    return share_nodes(alive_nodes(), scale, evaluation, placement)


def share_nodes(
    nodes: Sequence[Node], scale: ScaleConfig, evaluation: EvaluationConfig, placement: PlacementConfig
) -> Resources:
    """Shares nodes among a run's workers and its asynchronous evaluation.

    Raises UserError, with what is missing where, for nodes that cannot hold the workers. With `placement.wait`, or
    where an autoscaler manages the nodes, the workers wait instead, and `shortage` says for what. An elastic run needs
    room for its fewest workers, and each further one gets the same.
    """
    processors = evaluation.processors if evaluation.asynchronous else 0
    wanted = [node for node in nodes if matches(node.labels, parse_labels(placement.labels))]
    workers = scale.fewest
    gpus = worker_gpus(wanted, scale.device, workers, placement)
    fixed = with_placement(Resources(0.0, gpus), placement)
    spare_gpus = int(sum(node.resources.get("GPU", 0.0) for node in wanted) - gpus * workers)
    asked = placement.cpus_per_worker
    shares = [asked] if asked is not None else _shares(wanted, workers, processors) or [1.0]

    def with_cpus(worker_cpus: float) -> Resources:
        return replace(
            fixed,
            worker_cpus=worker_cpus,
            evaluation_cpus=evaluation_cpus(processors, worker_cpus),
            evaluation_gpus=1 if processors and fixed.use_gpu and spare_gpus >= 1 else 0,
        )

    for share in shares:
        if _fits(nodes, with_cpus(share), workers):
            return with_cpus(share)
    found = with_cpus(shares[0])
    message = f"the Ray cluster has no place for {found.describe_workers(workers)}: " + (
        missing(nodes, found.bundle, workers, found.strategy)
        or f"no node has {amount_text('CPU', found.evaluation_cpus)} left for the asynchronous evaluation"
    )
    if should_wait(nodes, placement):
        return replace(found, shortage=message)
    raise UserError(
        f"{message}; ask for less (scale.workers, placement.*), or add nodes, or with placement.wait=true wait for them"
    )


def should_wait(nodes: Sequence[Node], placement: PlacementConfig) -> bool:
    """Whether to wait for nodes: `placement.wait`, else whether an autoscaler manages some node."""
    if placement.wait is not None:
        return placement.wait
    return any("ray.io/node-group" in node.labels for node in nodes)


def with_placement(resources: Resources, placement: PlacementConfig) -> Resources:
    """The resources with all settings of `placement` except processors and GPUs."""
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
    """GPUs of each worker: `placement.gpus_per_worker`, else one where the nodes have enough or the run needs them."""
    asked = placement.gpus_per_worker
    if device == "cpu" or asked == 0:
        return 0.0
    if asked is not None:
        return asked
    found = sum(node.resources.get("GPU", 0.0) for node in nodes)
    return 1.0 if found >= workers or device == "cuda" or placement.accelerator_type is not None else 0.0


def evaluation_cpus(processors: int, worker_cpus: float) -> float:
    """Processors of an asynchronous evaluation: at most one in fractions, or whole ones."""
    cpus = processors * min(1.0, worker_cpus)
    return cpus if cpus <= 1 else math.floor(cpus)


def _shares(nodes: Sequence[Node], workers: int, processors: int) -> list[float]:
    """Candidate processors of a worker, the most first: one, or a share of a node's.

    Rounded down to 0.01: shares that are rounded up would not fit beside each other.
    """
    sizes = {node.resources.get("CPU", 0.0) for node in nodes}
    cuts = {min(1.0, size / count) for size in sizes for count in range(1, workers + processors + 1)}
    return sorted({math.floor(cut * 100) / 100 for cut in cuts if cut >= 0.01}, reverse=True)


def _fits(nodes: Sequence[Node], resources: Resources, workers: int) -> bool:
    """Whether the workers fit, and beside them the asynchronous evaluation on any node."""
    if not resources.evaluation_cpus:
        return NodeCapacity(nodes).take_group(resources.bundle, workers, resources.strategy)
    for index in range(len(nodes)):
        capacity = NodeCapacity(nodes)
        if capacity.holds(index, resources.evaluation_bundle):
            capacity.take(index, resources.evaluation_bundle)
            if capacity.take_group(resources.bundle, workers, resources.strategy):
                return True
    return False
