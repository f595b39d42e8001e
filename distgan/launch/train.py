"""Training under Ray Train: workers on a cluster's nodes, one display on the driver."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.util
import torch.distributed as dist
from ray.exceptions import RayActorError, RayError
from ray.train import RunConfig
from ray.train.torch import TorchTrainer

from distgan.config.load import build_config
from distgan.config.plugins import custom_names, custom_sources
from distgan.distributed import Distributed, requested_threads
from distgan.errors import UserError
from distgan.launch.async_evaluator import ray_evaluator, task_options
from distgan.launch.cluster import HeadWatch, RayStorage, ray_cluster, ray_storage
from distgan.launch.failures import UNLIMITED, FailurePolicy, WorkerError
from distgan.launch.heartbeat import Heartbeat
from distgan.launch.jobs.bootstrap import difference, versions
from distgan.launch.local import Outcome, cluster_address
from distgan.launch.mailbox import Background
from distgan.launch.placement.capacity import local_cpus
from distgan.launch.placement.process_group import InterfaceConfig
from distgan.launch.placement.resources import Resources, plan_resources
from distgan.launch.placement.waiting import PlacementWatch, end_waiting_run, spot_notes, waiting_notes
from distgan.launch.ray_errors import is_broken_connection, report_losses
from distgan.launch.ray_internals import time_limits, without_idle_processes
from distgan.launch.reporter import RayReporter
from distgan.launch.run_mailbox import create_run_mailbox
from distgan.launch.signals import StopRequest, stop_on_signals
from distgan.storage.storage import Storage
from distgan.tracking import formatting
from distgan.tracking.console import Display
from distgan.tracking.record import recorded_failure
from distgan.training.events import Attempt, Notice, RunFinished, RunStarted, Summary, WorkersLost
from distgan.training.meter import Meter
from distgan.training.run_spec import RunSpec
from distgan.training.train import train


def worker_distributed(runs_per_host: int = 1, threads: int | None = None) -> Distributed:
    """This worker's rank, device and processors in its group of workers.

    Args:
        runs_per_host: how many groups share a host's processors.
        threads: the number in the driver's environment. A worker's own environment has Ray's number.
    """
    context = ray.train.get_context()
    return Distributed(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        local_size=context.get_local_world_size() * runs_per_host,
        processors=local_cpus(),
        threads=threads,
    )


def check_versions(expected: Mapping[str, str]) -> None:
    """Raises UserError where this worker's node has versions that differ from the driver's."""
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    differs = difference(expected, f"the node {node}")
    if differs is not None:
        raise UserError(differs)


_POLL_S = 0.3

_ATTEMPTS_S = 5.0

# A collective waits for other workers that long, and longer by `storage.patience_minutes`, as one may wait for storage.
_COLLECTIVE_S = 1800

# Of a cluster's head that does not answer: of one that only this process can start, and of one that others may.
_OWN_HEAD_S, _HEAD_S = 10.0, 40.0


def train_on_ray(spec: RunSpec, address: str | None, claim_lost: Callable[[], bool]) -> Outcome:
    """Trains on the cluster at `address`, or on one started for it; returns when the run has ended.

    A lost worker restarts the group from the newest checkpoint, up to `scale.max_failures` times without a new one.
    `claim_lost` says whether another process has taken over the run. The workers then end at their next write.
    """
    with stop_on_signals() as stop, Display() as display:
        display.message(formatting.connecting(cluster_address(address)))
        sources = custom_sources(custom_names(spec.config.model_dump()).values())
        run = spec.run
        with ray_storage(run) as storage, ray_cluster(address, sources) as own_cluster, report_losses(run.url):
            display.message(f"starting {spec.config.scale.range_text}")
            mailbox = create_run_mailbox(spec)
            resources = plan_resources(spec.config.scale, spec.config.evaluation, spec.config.placement)
            for note in waiting_notes(resources) + spot_notes():
                display.message(note)
            threads = requested_threads()
            trainer = build_ray_trainer(spec, mailbox, storage, resources, threads=threads, own_cluster=own_cluster)

            def attempts() -> list[Attempt]:
                found: list[Attempt] = []
                with suppress(RayError):  # the cluster is gone
                    found = ray.get(mailbox.attempts.remote(), timeout=_ATTEMPTS_S)
                return found

            with time_limits(spec.config.scale), recorded_failure(run, attempts), report_losses(run.url):
                fit = Background(trainer.fit)
                watch = PlacementWatch(resources, spec.config.scale, display.message)
                summary = _follow(mailbox, fit, display, stop, watch, own_cluster, claim_lost)
    return Outcome(summary, stop.exit_code, display.finished, display.sessions)


def build_ray_trainer(
    spec: RunSpec,
    mailbox: Any,
    storage: RayStorage,
    resources: Resources,
    runs_per_host: int = 1,
    threads: int | None = None,
    own_cluster: bool = False,
) -> TorchTrainer:
    """A run as a trainer of Ray Train.

    Args:
        mailbox: a `RunMailbox`, which takes the run's events.
        storage: a folder that Ray keeps while the run lasts.
        runs_per_host: how many such runs share a host's processors.
        threads: per worker, if the user's environment sets them.
        own_cluster: whether the cluster ends with this run.
    """
    config = spec.config
    path, filesystem = storage
    trainer = TorchTrainer(
        worker_main,
        train_loop_config={
            "spec": {
                **vars(spec),
                "config": config.model_dump(mode="json"),
                "storage_url": Storage.open(spec.storage_url).url,
            },
            "mailbox": mailbox,
            "runs_per_host": runs_per_host,
            "threads": threads,
            "versions": versions(),
            "evaluation": task_options(resources) if config.evaluation.asynchronous else None,
        },
        torch_config=InterfaceConfig(
            resources.backend,
            timeout_s=_COLLECTIVE_S + math.ceil(spec.patience_s),
            interface=config.placement.interface,
            mailbox=mailbox,
            keep_on_sigterm=True,
        ),
        scaling_config=resources.scaling(config.scale),
        run_config=RunConfig(
            name=f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=UNLIMITED,
            callbacks=[FailurePolicy(mailbox)],  # type: ignore[list-item]
        ),
    )
    return without_idle_processes(trainer, own_cluster)


def worker_main(arguments: dict[str, Any]) -> None:
    """Runs on every worker of Ray Train."""
    mailbox = arguments["mailbox"]
    if ray.get(mailbox.error.remote()) is not None:
        return  # the process group was not made
    distributed = worker_distributed(arguments["runs_per_host"], arguments["threads"])
    try:
        check_versions(arguments["versions"])
        config = build_config(arguments["spec"]["config"], "job", trust_code=True)
        spec = RunSpec(**{**arguments["spec"], "config": config})
        with closing(RayReporter(spec, mailbox)) as reporter:
            task = arguments["evaluation"]

            def log(line: str) -> None:
                reporter.event(Notice(line))

            evaluator = None if task is None else ray_evaluator(spec, distributed, task, log)
            meter = Meter()
            with Heartbeat(mailbox, distributed.rank, meter):
                train(spec, distributed, reporter, evaluator, meter)
    except UserError as error:
        ray.get(mailbox.put_error.remote(error))
        raise
    except Exception as error:
        # Ray takes the process group of workers away that it ends while they train, as where a node is preempted.
        ended_by_ray = distributed.size > 1 and not dist.is_initialized()
        if not ended_by_ray and not isinstance(error, RayActorError) and not is_broken_connection(error):
            node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            ray.get(mailbox.put_error.remote(WorkerError.of(error, distributed.rank, node)))
        raise


def _follow(
    mailbox: Any,
    fit: Background,
    display: Display,
    stop: StopRequest,
    watch: PlacementWatch,
    own_cluster: bool,
    claim_lost: Callable[[], bool],
) -> Summary | None:
    """Shows the events of a run until it has ended. Raises the error of a worker that no restart can fix."""
    summary: Summary | None = None
    asked = started = running = False
    head = HeadWatch(_OWN_HEAD_S if own_cluster else _HEAD_S)
    while True:
        head.check()
        ended = fit.ended(_POLL_S)
        events, error = ray.get(mailbox.take.remote())
        for event in events:
            display.event(event)
            if isinstance(event, RunStarted):
                started = running = True
            elif isinstance(event, WorkersLost):
                running = False
                watch.restart()
            if isinstance(event, RunFinished):
                summary = event.summary
        if not running:
            watch.check()
        if stop.requested and not running and (watch.waits or (own_cluster and not started)):
            if not own_cluster:
                end_waiting_run(fit)
            return None  # nothing has been trained since the last checkpoint
        if (stop.requested or claim_lost()) and not asked:
            asked = True
            if stop.requested:
                display.message("stopping: the state is saved first; press Ctrl-C again to stop at once")
            mailbox.ask_to_stop.remote()
        if error is not None and (own_cluster or ended):
            raise error
        if ended:
            fit.raise_error()
            return summary
