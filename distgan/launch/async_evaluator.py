"""Asynchronous evaluations: Ray Train's validation tasks, on processors of their own beside the workers."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, ValidationConfig, ValidationTaskConfig

from distgan.config.load import build_config
from distgan.config.plugins import custom_names
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Scores
from distgan.inference.evaluation import score_checkpoint
from distgan.launch.placement.resources import Resources
from distgan.storage.retry import Retry
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from distgan.training.process import prepare_process
from distgan.training.run_spec import RunSpec


def validation_config(spec: RunSpec, resources: Resources) -> ValidationConfig | None:
    """How Ray Train evaluates a run's checkpoints; None where the workers evaluate."""
    if not spec.config.evaluation.asynchronous:
        return None
    return ValidationConfig(
        fn=evaluate_checkpoint,  # type: ignore[arg-type]
        task_config=ValidationTaskConfig(
            fn_kwargs={
                "config": spec.config.model_dump(mode="json"),
                "run_url": spec.run.url,
                "device": "cuda" if resources.evaluation_gpus else "cpu",
                "threads": max(1, int(resources.evaluation_cpus)),
            }
        ),
        ray_remote_kwargs={
            "num_cpus": resources.evaluation_cpus,
            "num_gpus": resources.evaluation_gpus,
            "label_selector": dict(resources.labels),
        },
    )


def evaluate_checkpoint(
    pointer: Checkpoint, *, config: dict[str, Any], run_url: str, device: str, threads: int, name: str
) -> dict[str, Any]:
    """Ray's task: the `scores` of the run's checkpoint `name`, or a user's `error`.

    `pointer` is Ray's own checkpoint, which only names the run's.
    """
    try:
        distributed = Distributed(0, 1, torch.device(device))
        prepare_process(threads, distributed.device, config["training"]["precision"])
        store = CheckpointStore(Storage.open(run_url), custom_names(config), reading=Retry())
        checkpoint = store.load(name)
        if checkpoint is None:
            raise UserError(f"{run_url}: checkpoint {name} cannot be evaluated: it is gone or cannot be read")
        return {
            "scores": asdict(score_checkpoint(build_config(config, "job", trust_code=True), checkpoint, distributed))
        }
    except UserError as error:
        return {"error": str(error)}


class RayAsyncEvaluator:
    """The workers' side, an `AsyncEvaluator`: asks for evaluations and fetches their scores."""

    def __init__(self, distributed: Distributed, run_url: str) -> None:
        self._distributed, self._run_url = distributed, run_url

    def start(self, checkpoint: str) -> None:
        """Starts the evaluation of a checkpoint. Collective, as every report to Ray is."""
        metrics = {"checkpoint": checkpoint}
        if self._distributed.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            task = ValidationTaskConfig(fn_kwargs={"name": checkpoint})
            pointer = Checkpoint.from_directory(folder)
            pointer.set_metadata(metrics)
            ray.train.report(metrics, checkpoint=pointer, validation=task)

    def result(self, checkpoint: str) -> Scores:
        """The scores of a checkpoint; waits for them. Collective. Raises UserError where the evaluation failed."""
        result = self._distributed.broadcast(self._fetched(checkpoint) if self._distributed.rank == 0 else {})
        if "scores" not in result:
            raise UserError(result["error"])
        return Scores(**result["scores"])

    def _fetched(self, checkpoint: str) -> dict[str, Any]:
        reported = ray.train.get_all_reported_checkpoints()
        found: list[dict[str, Any]] = [one.metrics for one in reported if one.metrics.get("checkpoint") == checkpoint]
        answers = [metrics for metrics in found if "scores" in metrics or "error" in metrics]
        if answers:
            return answers[-1]
        return {
            "error": f"{self._run_url}: the evaluation of checkpoint {checkpoint} failed; the log of Ray's task "
            f"run_validation_fn says why; to resume, run the same command with evaluation.asynchronous=false"
        }
