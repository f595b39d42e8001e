"""Evaluations aside as Ray Train's asynchronous validation: a task with processors of its own, beside the workers."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, ValidationConfig, ValidationTaskConfig

from distgan.config.load import build_config
from distgan.config.plugins import own_names
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


def validation_config(job: RunSpec, resources: Resources) -> ValidationConfig | None:
    """How Ray Train measures a run's checkpoints; None where its workers do."""
    if not job.config.evaluation.asynchronous:
        return None
    return ValidationConfig(
        fn=validate,  # type: ignore[arg-type]
        task_config=ValidationTaskConfig(
            fn_kwargs={
                "config": job.config.model_dump(mode="json"),
                "run_url": job.run.url,
                "device": "cuda" if resources.validation_gpus else "cpu",
                "threads": max(1, int(resources.validation_cpus)),
            }
        ),
        ray_remote_kwargs={
            "num_cpus": resources.validation_cpus,
            "num_gpus": resources.validation_gpus,
            "label_selector": dict(resources.labels),
        },
    )


def validate(
    pointer: Checkpoint, *, config: dict[str, Any], run_url: str, device: str, threads: int, name: str
) -> dict[str, Any]:
    """What Ray runs as a task: the scores of the run's checkpoint `name`, or a mistake.

    Ray's own checkpoint only points to it.
    """
    try:
        distributed = Distributed(0, 1, torch.device(device))
        prepare_process(threads, distributed.device)
        store = CheckpointStore(Storage.open(run_url), own_names(config), reading=Retry())
        checkpoint = store.load(name)
        if checkpoint is None:
            raise UserError(f"{run_url}: checkpoint {name} was to be evaluated, and is gone or cannot be read")
        return {
            "scores": asdict(score_checkpoint(build_config(config, "job", trust_code=True), checkpoint, distributed))
        }
    except UserError as error:
        return {"mistake": str(error)}


class RayValidation:
    """The workers' side, an `AsyncEvaluator`: asks for validations and fetches what they found."""

    def __init__(self, distributed: Distributed, run_url: str) -> None:
        self._world, self._run_url = distributed, run_url

    def start(self, checkpoint: str) -> None:
        """Every rank must come here, as to each report."""
        metrics = {"checkpoint": checkpoint}
        if self._world.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            task = ValidationTaskConfig(fn_kwargs={"name": checkpoint})
            pointer = Checkpoint.from_directory(folder)
            pointer.set_metadata(metrics)
            ray.train.report(metrics, checkpoint=pointer, validation=task)

    def result(self, checkpoint: str) -> Scores:
        found = self._world.broadcast(self._fetched(checkpoint) if self._world.rank == 0 else {})
        if "scores" not in found:
            raise UserError(found["mistake"])
        return Scores(**found["scores"])

    def _fetched(self, checkpoint: str) -> dict[str, Any]:
        """What the validation has returned; waits for it."""
        reported = ray.train.get_all_reported_checkpoints()
        found: list[dict[str, Any]] = [one.metrics for one in reported if one.metrics.get("checkpoint") == checkpoint]
        answers = [metrics for metrics in found if "scores" in metrics or "mistake" in metrics]
        if answers:
            return answers[-1]
        return {
            "mistake": f"{self._run_url}: the evaluation of checkpoint {checkpoint} beside the training failed; the "
            f"log of Ray's task run_validation_fn says why; the same command with evaluation.asynchronous=false goes on"
        }
