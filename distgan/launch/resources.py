"""What of a Ray cluster a run's workers get, and what is left for its evaluations aside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ray

from distgan.config.schema import EvaluationConfig, ScaleConfig
from distgan.errors import UserError


@dataclass(frozen=True)
class Resources:
    """Processors of each worker, a fraction where there are fewer than workers; its GPUs, 0 without.

    `validation_cpus` and `validation_gpus` are those of an evaluation aside.
    """

    worker_cpus: float
    worker_gpus: float = 0.0
    validation_cpus: float = 0.0
    validation_gpus: int = 0

    @property
    def use_gpu(self) -> bool:
        return self.worker_gpus > 0

    @property
    def per_worker(self) -> dict[str, float]:
        """As Ray asks for them."""
        gpus = {"GPU": self.worker_gpus} if self.use_gpu else {}
        return {"CPU": self.worker_cpus, **gpus}


def plan_resources(scale: ScaleConfig, evaluation: EvaluationConfig) -> Resources:
    """Shares the connected cluster. Raises UserError where it cannot hold the workers."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    workers, use_gpu, gpus = scale.workers, _use_gpu(scale, found), int(found.get("GPU", 0))
    aside = evaluation.processors if evaluation.asynchronous else 0
    # Rounded down: shares of a processor that are rounded up would not fit beside each other.
    share = math.floor(min(1.0, found.get("CPU", 0.0) / (workers + aside)) * 100) / 100
    if share == 0:
        raise UserError("the Ray cluster has no processors for workers; add a node")
    return Resources(
        worker_cpus=share,
        worker_gpus=1.0 if use_gpu else 0.0,
        validation_cpus=aside * share if aside * share <= 1 else math.floor(aside * share),
        validation_gpus=1 if aside and use_gpu and gpus > workers else 0,
    )


def _use_gpu(scale: ScaleConfig, found: dict[str, float]) -> bool:
    """Whether each worker gets a GPU: where the cluster has enough of them and the configuration allows it."""
    gpus, workers = int(found.get("GPU", 0)), scale.workers
    if scale.device == "cuda" and gpus < workers:
        raise UserError(
            f"scale.device=cuda with {workers} workers: the Ray cluster has {gpus} GPUs; "
            f"ask for fewer workers or add nodes"
        )
    return scale.device != "cpu" and gpus >= workers
