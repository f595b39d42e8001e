"""An evaluation under Ray Train: workers on a cluster's nodes, one progress bar on the driver."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import ray
from ray.train import RunConfig
from ray.train.torch import TorchTrainer

from distgan.config.placement import PlacementConfig
from distgan.config.scale import ScaleConfig
from distgan.config.schema import EvaluationConfig
from distgan.distributed import requested_threads
from distgan.errors import Interrupted, UserError
from distgan.evaluation.image_source import OnProgress, Stage
from distgan.launch.cluster import ray_cluster
from distgan.launch.local import J, R, Task, Workers, cluster_address
from distgan.launch.mailbox import Background, create_mailbox
from distgan.launch.placement.process_group import InterfaceConfig
from distgan.launch.placement.resources import Resources, plan_resources
from distgan.launch.placement.waiting import waiting_notes
from distgan.launch.ray_errors import report_losses
from distgan.launch.ray_internals import without_idle_processes
from distgan.launch.signals import StopRequest, stop_on_signals
from distgan.launch.train import worker_distributed
from distgan.text import plural
from distgan.tracking import formatting

_POLL_S = 0.3


@dataclass(frozen=True)
class _Result(Generic[R]):
    """What rank 0 puts into the mailbox at the end."""

    value: R


def run_task_on_ray(
    task: Task[J, R], job: J, workers: Workers, on_progress: OnProgress, log: Callable[[str], None]
) -> R:
    """See `launch.evaluate.run_task`."""
    with stop_on_signals() as stop:
        log(formatting.connecting(cluster_address(workers.address)))
        with (
            tempfile.TemporaryDirectory(prefix="distgan-") as folder,
            ray_cluster(workers.address, workers.sources) as own,
            report_losses("the evaluation", "evaluates anew"),
        ):
            log(f"starting {plural(workers.count, 'worker')}")
            mailbox = create_mailbox()
            scale = ScaleConfig(workers=workers.count, device=workers.device)
            resources = plan_resources(scale, EvaluationConfig(), PlacementConfig())
            for note in waiting_notes(resources):
                log(note)
            trainer = _trainer(task, job, mailbox, folder, resources, scale)
            fit = Background(without_idle_processes(trainer, own).fit)
            result: _Result[R] | None = _follow(mailbox, fit, on_progress, stop)
    if result is None:
        raise Interrupted(stop.exit_code)
    return result.value


def worker_main(arguments: dict[str, Any]) -> None:
    """Runs on every worker of Ray Train."""
    mailbox = arguments["mailbox"]
    if ray.get(mailbox.error.remote()) is not None:
        return  # the process group was not made
    distributed = worker_distributed(threads=arguments["threads"])

    def on_progress(stage: Stage, images: int) -> None:
        mailbox.put.remote((stage, images))

    try:
        result = arguments["task"](arguments["job"], distributed, on_progress)
        if distributed.rank == 0:
            ray.get(mailbox.put.remote(_Result(result)))
    except UserError as error:
        ray.get(mailbox.put_error.remote(error))
        raise


def _trainer(
    task: Task[J, R], job: J, mailbox: Any, folder: str, resources: Resources, scale: ScaleConfig
) -> TorchTrainer:
    """Ray Train's trainer. `folder` is on this machine: as nothing is reported to Ray, no other machine needs it."""
    return TorchTrainer(
        worker_main,
        train_loop_config={"task": task, "job": job, "mailbox": mailbox, "threads": requested_threads()},
        torch_config=InterfaceConfig(resources.backend, mailbox=mailbox),
        scaling_config=resources.scaling(scale),
        run_config=RunConfig(name="evaluation", storage_path=folder),
    )


def _follow(mailbox: Any, fit: Background, on_progress: OnProgress, stop: StopRequest) -> _Result[Any] | None:
    """Reports progress until the workers have ended, and returns their result; None after a request to stop.

    Raises the UserError of a worker.
    """
    result: _Result[Any] | None = None
    while not stop.requested:
        ended = fit.ended(_POLL_S)
        events, error = ray.get(mailbox.take.remote())
        for event in events:
            if isinstance(event, _Result):
                result = event
            else:
                on_progress(*event)
        if error is not None:
            raise error
        if ended:
            fit.raise_error()
            assert result is not None, "the workers ended without a result"
            return result
    return None
