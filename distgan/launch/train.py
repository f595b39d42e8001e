"""Training under Ray Train: workers on a cluster's nodes, one display on the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.util
from ray.train import FailureConfig, RunConfig
from ray.train.torch import TorchTrainer

from distgan.config.load import build_config
from distgan.config.plugins import own_names, own_sources
from distgan.distributed import Distributed, requested_threads
from distgan.errors import UserError
from distgan.launch.async_evaluator import RayValidation, validation_config
from distgan.launch.cluster import RayStorage, ray_cluster, ray_storage
from distgan.launch.jobs.bootstrap import difference, versions
from distgan.launch.local import Outcome, cluster_address
from distgan.launch.mailbox import Background, create_mailbox
from distgan.launch.placement.capacity import processors_here
from distgan.launch.placement.process_group import InterfaceConfig
from distgan.launch.placement.resources import Resources, plan_resources
from distgan.launch.placement.waiting import Waiting, give_up, on_spot, waiting
from distgan.launch.ray_errors import lost_processes_as_one_line
from distgan.launch.signals import StopWish, stop_on_signals
from distgan.storage.storage import Storage
from distgan.tracking import formatting
from distgan.tracking.console import Display
from distgan.tracking.run_folder import RunReporter
from distgan.training.events import EvaluationResult, RunFinished, RunStarted, Summary
from distgan.training.run_spec import RunSpec
from distgan.training.train import train


def worker_world(runs_a_host: int = 1, threads: int | None = None) -> Distributed:
    """This worker's place among all of its group, where each host has so many groups like it.

    threads: those that the driver's environment asks for; a worker's own has what Ray has set.
    """
    context = ray.train.get_context()
    return Distributed(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        local_size=context.get_local_world_size() * runs_a_host,
        processors=processors_here(),
        threads=threads,
    )


def check_versions(expected: Mapping[str, str]) -> None:
    """Raises UserError where this worker's node has other versions than the driver."""
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    differs = difference(expected, f"the node {node}")
    if differs is not None:
        raise UserError(differs)


_POLL_S = 0.3


def train_on_ray(job: RunSpec, address: str | None, lost: Callable[[], bool]) -> Outcome:
    """Runs the job on the cluster at `address`, or on one of its own; returns when it has ended.

    A lost worker restarts the group from the newest checkpoint, up to `scale.max_failures` times.
    `lost` says whether another process has taken over the run: its workers then end at their next write.
    """
    with stop_on_signals() as wish, Display() as display:
        display.message(formatting.connecting(cluster_address(address)))
        sources = own_sources(own_names(job.config.model_dump()).values())
        run = job.run
        with ray_storage(run) as notes, ray_cluster(address, sources) as own, lost_processes_as_one_line(run.url):
            display.message(f"starting {formatting.plural(job.config.scale.workers, 'worker')}")
            board = create_mailbox()
            resources = plan_resources(job.config.scale, job.config.evaluation, job.config.placement)
            for note in waiting(resources) + on_spot():
                display.message(note)
            trainer = build_trainer(job, board, notes, resources, threads=requested_threads())
            fit = Background(trainer.fit)
            places = Waiting(resources, job.config.scale.workers, display.message)
            summary = _follow(board, fit, display, wish, places, own, lost)
    return Outcome(summary, wish.exit_code, display.finished, display.sessions)


def build_trainer(
    job: RunSpec, board: Any, notes: RayStorage, resources: Resources, runs_a_host: int = 1, threads: int | None = None
) -> TorchTrainer:
    """The Ray Train run of a job; `runs_a_host` of them share a host's processors.

    threads: those of a worker that the user's environment asks for.
    """
    config = job.config
    path, filesystem = notes
    return TorchTrainer(
        worker_main,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "name": job.name,
            "storage_url": Storage.open(job.storage_url).url,
            "profile": job.profile,
            "init_from": job.init_from,
            "continue_from": job.continue_from,
            "claim": job.claim,
            "board": board,
            "runs_a_host": runs_a_host,
            "threads": threads,
            "versions": versions(),
        },
        torch_config=InterfaceConfig(resources.backend, interface=config.placement.interface, board=board),
        scaling_config=resources.scaling(config.scale.workers),
        validation_config=validation_config(job, resources),  # type: ignore[call-arg]
        run_config=RunConfig(
            name=f"{job.name}-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.scale.max_failures),
        ),
    )


def worker_main(arguments: dict[str, Any]) -> None:
    """What Ray Train runs on every worker."""
    board = arguments["board"]
    if ray.get(board.mistake.remote()) is not None:
        return  # a restart after a mistake that a restart cannot mend
    distributed = worker_world(arguments["runs_a_host"], arguments["threads"])
    try:
        check_versions(arguments["versions"])
        config = build_config(arguments["config"], "job", trust_code=True)
        names = ("name", "storage_url", "profile", "init_from", "continue_from", "claim")
        job = RunSpec(config, **{name: arguments[name] for name in names})
        with closing(RayReporter(job.run, board, config.tracking)) as reporter:
            aside = RayValidation(distributed, job.run.url) if config.evaluation.asynchronous else None
            train(job, distributed, reporter, aside)
    except UserError as error:
        ray.get(board.put_mistake.remote(error))
        raise


class RayReporter(RunReporter):
    """A run's reporter whose events go to the driver's board, and whose evaluations Ray is told."""

    def __init__(self, run: Storage, board: Any, trackers: Sequence[str]) -> None:
        super().__init__(run, board.put.remote, lambda: bool(ray.get(board.stop_asked.remote())), trackers)
        self._run_url = run.url

    def evaluated(self, event: EvaluationResult) -> None:
        """Metrics and a pointer for Ray; every rank must come here."""
        metrics = {event.metric: event.value, "kimg": event.kimg, "step": event.step, "run": self._run_url}
        ray.train.report(metrics if event.best is None else metrics | {"best": event.best})


def _follow(
    board: Any,
    fit: Background,
    display: Display,
    wish: StopWish,
    places: Waiting,
    own: bool,
    lost: Callable[[], bool],
) -> Summary | None:
    """Shows what the board says until the run has ended. Raises UserError for a worker's."""
    summary: Summary | None = None
    asked = started = False
    while True:
        ended = fit.ended(_POLL_S)
        events, mistake = ray.get(board.take.remote())
        for event in events:
            display.event(event)
            started = started or isinstance(event, RunStarted)
            if isinstance(event, RunFinished):
                summary = event.summary
        if not started:
            places.look()
        if wish.wished and not started and (own or places.waits):
            if not own:
                give_up(fit)
            return None  # nothing has been trained that could be lost
        if (wish.wished or lost()) and not asked:
            asked = True
            if wish.wished:
                display.message("stopping: the state is saved first; press Ctrl-C again to stop at once")
            board.ask_to_stop.remote()
        if mistake is not None and (own or ended):
            raise mistake
        if ended:
            fit.raise_error()
            return summary
