"""A search on Ray Tune, each of its trials a run of Ray Train."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from distgan.config.plugins import own_names, own_sources
from distgan.distributed import requested_threads
from distgan.launch.cluster import ray_cluster
from distgan.launch.local import cluster_address
from distgan.launch.mailbox import Background, create_mailbox
from distgan.launch.placement.waiting import on_spot, trials_on_spot, waiting
from distgan.launch.ray_errors import lost_processes_as_one_line
from distgan.launch.signals import StopWish, stop_on_signals
from distgan.search.planning import SearchJob
from distgan.search.ranking import reached
from distgan.search.ray.hooks import SearchStopper, StateCallback, StateSearcher
from distgan.search.ray.schedulers import build_scheduler, remember
from distgan.search.ray.trial import TrialRun
from distgan.search.ray.trial_resources import TRIAL_CPUS, ResourceRequest, TrialShare, share_cluster
from distgan.search.record import SearchEnd, SearchRecord, Trial
from distgan.search.search_console import SearchDisplay
from distgan.search.search_state import SearchState
from distgan.search.trial_tables import Progress
from distgan.tracking import formatting

_POLL_S = 0.3

# Tune keeps no tables, logs and snapshots of its own: what a search is, is in its book.
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Place:
    """Where trials run; None is to be chosen (see `search.resources.Wish`)."""

    address: str | None = None
    concurrent: int | None = None


@dataclass(frozen=True)
class SearchOutcome:
    """The search's record at the end, and the exit code for the command line."""

    record: SearchRecord
    exit_code: int


def tune_on_ray(job: SearchJob, place: Place) -> SearchOutcome:
    """Runs the search until its trials or limits end, or somebody stops it.

    Killed at any moment, the same command goes on with it. Raises UserError where trials do not fit the cluster.
    """
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    where = job.search.url
    with stop_on_signals() as wish, SearchDisplay() as display:
        display.message(formatting.connecting(cluster_address(place.address)))
        sources = own_sources(own_names(job.config.model_dump()).values())
        way_on = "goes on with the search"
        with ray_cluster(place.address, sources), lost_processes_as_one_line(where, way_on):
            share = share_cluster(_wish(job, place))
            for note in job.notes:
                display.message(note)
            display.message(_told(job, share))
            for note in waiting(share.resources) + on_spot() + trials_on_spot():
                display.message(note)
            book = SearchState(job.record, job.space, job.proposals(), job.search)
            display.update(book.snapshot(), {})
            board, ending = create_mailbox(), SearchStopper()
            reason = _reason(book, 0.0, wish)  # of an earlier session
            if reason is None:
                with _tuner(job, book, share, board, ending) as tuner:
                    fit = Background(tuner.fit)
                    _follow(book, board, fit, ending, display, wish)
            record = book.close(
                reason or ending.reason or ("target" if reached(book.snapshot()) else "all trials ended")
            )
            display.update(record, {})
    return SearchOutcome(record, wish.exit_code)


def _wish(job: SearchJob, place: Place) -> ResourceRequest:
    scale, evaluation = job.config.scale, job.config.evaluation
    return ResourceRequest(
        workers=scale.workers,
        aside=evaluation.processors if evaluation.asynchronous else 0,
        device=scale.device,
        concurrent=place.concurrent,
        most=job.record.limits.trials,
        placement=job.config.placement,
    )


def _told(job: SearchJob, share: TrialShare) -> str:
    each = formatting.plural(job.config.scale.workers, "worker")
    device = "" if share.resources.use_gpu else " and no GPU"
    verb = "going on with" if job.resumes else "starting"
    return (
        f"{verb} {job.record.name}: {formatting.plural(share.concurrent, 'trial')} at once, each of {each} with "
        f"{share.resources.words()}{device}"
    )


@contextmanager
def _tuner(
    job: SearchJob, book: SearchState, share: TrialShare, board: Any, ending: SearchStopper
) -> Iterator[tune.Tuner]:
    """Tune with the book's trials; its own notes are in a folder of this machine, afterwards gone."""
    plan, trials = job.record.plan, job.record.trials
    scheduler, threads = build_scheduler(plan), requested_threads()
    remember(scheduler, plan, trials)

    def describe(trial: Trial) -> dict[str, Any]:
        return {
            "number": trial.number,
            "job": job.trial_job(trial),
            "resources": share.resources,
            "runs_a_host": share.runs_a_host,
            "threads": threads,
            "begins_at_kimg": 0.0 if trial.parent is None else book.kimg_of(trial.parent),
            "exempt": trial.repeats is not None,
            "board": board,
        }

    with tempfile.TemporaryDirectory(prefix="distgan-") as notes:
        yield tune.Tuner(
            tune.with_resources(TrialRun, trial_actor(share)),
            tune_config=tune.TuneConfig(
                search_alg=StateSearcher(book, describe, ending),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=share.concurrent,
                trial_name_creator=lambda trial: f"trial-{trial.config['number']:04d}",
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}",
            ),
            run_config=tune.RunConfig(
                name=job.record.name,
                storage_path=notes,
                stop=ending,
                failure_config=tune.FailureConfig(max_failures=job.config.scale.max_failures),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[StateCallback(book)],
                verbose=0,
            ),
        )


def trial_actor(share: TrialShare) -> tune.PlacementGroupFactory:
    """Of a trial's own process, which follows its workers."""
    selectors = [dict(share.actor_labels)] if share.actor_labels else None
    return tune.PlacementGroupFactory([{"CPU": TRIAL_CPUS}], bundle_label_selector=selectors)


def _follow(
    book: SearchState, board: Any, fit: Background, ending: SearchStopper, display: SearchDisplay, wish: StopWish
) -> None:
    """Shows what happens until all trials have ended, and ends them where a limit is met."""
    progress: dict[int, Progress] = {}
    began = time.monotonic()
    while not fit.ended(_POLL_S):
        events, _ = ray.get(board.take.remote())
        for number, kimg, images_per_second in events:
            progress[number] = Progress(kimg, images_per_second)
        display.update(book.snapshot(), progress)
        reason = _reason(book, time.monotonic() - began, wish) if ending.reason is None else None
        if reason is not None:
            ending.begin(reason)
            if reason == "interrupted":
                display.message("stopping: trials save their state first; press Ctrl-C again to stop at once")
            board.ask_to_stop.remote()
    book.raise_failure()
    fit.raise_error()


def _reason(book: SearchState, seconds: float, wish: StopWish) -> SearchEnd | None:
    """Why the search is to end now."""
    record = book.snapshot()
    limits = record.limits
    if wish.wished:
        return "interrupted"
    if reached(record):
        return "target"
    if limits.budget_hours is not None and seconds >= 3600 * limits.budget_hours:
        return "budget"
    if limits.budget_kimg is not None and book.kimg >= limits.budget_kimg:
        return "budget"
    return None
