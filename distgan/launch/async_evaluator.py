"""Asynchronous evaluations: a task of Ray measures a checkpoint, on processors of its own beside the workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, TypedDict

import ray
import torch
from ray.exceptions import RayTaskError

from distgan.config.load import build_config
from distgan.config.plugins import custom_names, error_text
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Scores
from distgan.inference.evaluation import score_checkpoint
from distgan.launch.placement.resources import Resources
from distgan.launch.ray_errors import loss_text
from distgan.storage.retry import Retry
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from distgan.training.process import prepare_process
from distgan.training.run_spec import RunSpec

# How often an evaluation begins again after its process was lost.
RESTARTS = 3


class TaskOptions(TypedDict):
    """What a task of Ray needs."""

    num_cpus: float
    num_gpus: float
    label_selector: dict[str, str]


# What was measured: `scores`, a user's `error`, or nothing where the checkpoint cannot be read or measured.
Answer = dict[str, Any]


class TaskEvaluator:
    """An `AsyncEvaluator` whose checkpoints another process measures. It begins again where that process is lost.

    Args:
        measure: measures a checkpoint, by its name, in another process, and waits for it. Called in a thread of rank 0.
        loss: says why the process was lost, from the error that `measure` raised; None for other errors.
        log: receives a line for each lost process.
    """

    def __init__(
        self,
        distributed: Distributed,
        measure: Callable[[str], Answer],
        loss: Callable[[Exception], str | None],
        log: Callable[[str], None],
    ) -> None:
        self._distributed, self._measure, self._loss, self._log = distributed, measure, loss, log
        self._answer: Future[Answer] = Future()

    def start(self, checkpoint: str) -> None:
        if self._distributed.rank == 0:
            self._answer = Future()
            # A daemon: a run that is stopped does not wait for it.
            threading.Thread(target=self._run, args=(checkpoint, self._answer), daemon=True).start()

    def result(self, checkpoint: str) -> Scores | None:
        answer = self._distributed.broadcast(self._answer.result() if self._distributed.rank == 0 else {})
        if "error" in answer:
            raise UserError(f"the evaluation of checkpoint {checkpoint} failed: {answer['error']}")
        return Scores(**answer["scores"]) if "scores" in answer else None

    def _run(self, checkpoint: str, answer: Future[Answer]) -> None:
        for restart in range(1, RESTARTS + 2):
            try:
                answer.set_result(self._measure(checkpoint))
                return
            except Exception as error:  # noqa: BLE001 - raised by result()
                reason = self._loss(error)
                if reason is None:
                    hint = "with evaluation.asynchronous=false the workers evaluate, and show where"
                    answer.set_result({"error": f"{error_text(error)}; {hint}"})
                    return
            again = f"restart {restart} of {RESTARTS}" if restart <= RESTARTS else "the workers evaluate it"
            self._log(f"the evaluation of checkpoint {checkpoint} was lost: {reason}; {again}")
        answer.set_result({})


def ray_evaluator(
    spec: RunSpec, distributed: Distributed, task: TaskOptions, log: Callable[[str], None]
) -> TaskEvaluator:
    """Measures a run's checkpoints in tasks of Ray. They end with the worker that starts them."""
    # Not among the resources of the actor that a trial runs in, which its training has.
    remote = ray.remote(evaluate_checkpoint).options(max_retries=0, scheduling_strategy="DEFAULT", **task)
    config = spec.config.model_dump(mode="json")
    device, threads = "cuda" if task["num_gpus"] else "cpu", max(1, int(task["num_cpus"]))

    def measure(checkpoint: str) -> Answer:
        try:
            answer: Answer = ray.get(remote.remote(checkpoint, config, spec.run.url, device, threads))
        except RayTaskError as error:
            raise error.cause from None
        return answer

    return TaskEvaluator(distributed, measure, loss_text, log)


def task_options(resources: Resources) -> TaskOptions:
    """What an asynchronous evaluation gets of the resources of a run."""
    return {
        "num_cpus": resources.evaluation_cpus,
        "num_gpus": resources.evaluation_gpus,
        "label_selector": dict(resources.labels),
    }


def evaluate_checkpoint(name: str, config: dict[str, Any], run_url: str, device: str, threads: int) -> Answer:
    """Measures a run's checkpoint in this process. Storage that is unavailable is waited for."""
    try:
        distributed = Distributed(0, 1, torch.device(device))
        prepare_process(threads, distributed.device, config["training"]["precision"])
        retry = Retry(wait_s=60 * config["storage"]["patience_minutes"])
        checkpoint = CheckpointStore(Storage.open(run_url), custom_names(config), reading=retry).load(name)
        if checkpoint is None:
            return {}
        built = build_config(config, "job", trust_code=True)
        return {"scores": asdict(retry(lambda: score_checkpoint(built, checkpoint, distributed)))}
    except UserError as error:
        return {"error": str(error)}
