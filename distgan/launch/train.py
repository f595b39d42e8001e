"""Training under Ray Train: workers on a cluster's nodes, one display on the driver."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig
from ray.train.torch import TorchTrainer

from distgan.config.components import own_names
from distgan.config.load import build_config
from distgan.config.own_code import own_sources
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.launch.background import Background
from distgan.launch.board import create_board
from distgan.launch.cluster import ray_cluster
from distgan.launch.device import cluster_address
from distgan.launch.lost import lost_processes_as_one_line
from distgan.launch.notes import RayStorage, ray_notes
from distgan.launch.outcome import Outcome
from distgan.launch.placement.placed import on_spot, waiting
from distgan.launch.placement.process_group import InterfaceConfig
from distgan.launch.placement.resources import Resources, plan_resources
from distgan.launch.placement.waiting import Waiting, give_up
from distgan.launch.signals import StopWish, stop_on_signals
from distgan.launch.validation import RayValidation, validation_config
from distgan.launch.workers import check_versions, worker_world
from distgan.report import words
from distgan.report.display import Display
from distgan.report.reporter import RunReporter
from distgan.submission.versions import versions
from distgan.training.events import Evaluated, Finished, Started, Summary
from distgan.training.job import Job
from distgan.training.loop import train
from distgan.world import asked_threads

_POLL_S = 0.3


def train_on_ray(job: Job, address: str | None, lost: Callable[[], bool]) -> Outcome:
    """Runs the job on the cluster at `address`, or on one of its own; returns when it has ended.

    A lost worker restarts the group from the newest checkpoint, up to `scale.max_failures` times.
    `lost` says whether another process has taken over the run: its workers then end at their next write.
    """
    with stop_on_signals() as wish, Display() as display:
        display.message(words.connecting(cluster_address(address)))
        sources = own_sources(own_names(job.config.model_dump()).values())
        run = job.run
        with ray_notes(run) as notes, ray_cluster(address, sources) as own, lost_processes_as_one_line(run.url):
            display.message(f"starting {words.plural(job.config.scale.workers, 'worker')}")
            board = create_board()
            resources = plan_resources(job.config.scale, job.config.evaluation, job.config.placement)
            for note in waiting(resources) + on_spot():
                display.message(note)
            trainer = build_trainer(job, board, notes, resources, threads=asked_threads())
            fit = Background(trainer.fit)
            places = Waiting(resources, job.config.scale.workers, display.message)
            summary = _follow(board, fit, display, wish, places, own, lost)
    return Outcome(summary, wish.exit_code, display.finished, display.sessions)


def build_trainer(
    job: Job, board: Any, notes: RayStorage, resources: Resources, runs_a_host: int = 1, threads: int | None = None
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
    world = worker_world(arguments["runs_a_host"], arguments["threads"])
    try:
        check_versions(arguments["versions"])
        config = build_config(arguments["config"], "job", trust_code=True)
        names = ("name", "storage_url", "profile", "init_from", "continue_from", "claim")
        job = Job(config, **{name: arguments[name] for name in names})
        with closing(RayReporter(job.run, board)) as reporter:
            aside = RayValidation(world, job.run.url) if config.evaluation.asynchronous else None
            train(job, world, reporter, aside)
    except UserError as error:
        ray.get(board.put_mistake.remote(error))
        raise


class RayReporter(RunReporter):
    """A run's reporter whose events go to the driver's board, and whose evaluations Ray is told."""

    def __init__(self, run: Storage, board: Any) -> None:
        super().__init__(run, board.put.remote, lambda: bool(ray.get(board.stop_asked.remote())))
        self._run_url = run.url

    def evaluated(self, event: Evaluated) -> None:
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
            started = started or isinstance(event, Started)
            if isinstance(event, Finished):
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
