"""A search on Ray Tune: trials of one worker run in its actors, others are runs of Ray Train."""

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

from distgan.config.plugins import custom_names, custom_sources
from distgan.distributed import requested_threads
from distgan.launch.cluster import ray_cluster
from distgan.launch.hangs import BEAT_S
from distgan.launch.jobs.bootstrap import versions
from distgan.launch.local import cluster_address
from distgan.launch.mailbox import Background, create_mailbox
from distgan.launch.placement.capacity import Bundle
from distgan.launch.placement.waiting import spot_notes, trial_spot_notes, waiting_notes
from distgan.launch.ray_errors import actor_failure, report_losses
from distgan.launch.signals import StopRequest, stop_on_signals
from distgan.search.planning import SearchSpec
from distgan.search.ranking import reached
from distgan.search.ray.hooks import SearchStopper, StateCallback, StateSearcher
from distgan.search.ray.schedulers import build_scheduler, replay_trials
from distgan.search.ray.search_mailbox import SearchMailbox, TrialStarted
from distgan.search.ray.trial import TrialRun
from distgan.search.ray.trial_resources import TRIAL_CPUS, ResourceRequest, TrialResources, share_cluster
from distgan.search.ray.trial_runs import failure_rules
from distgan.search.record import SearchEnd, SearchRecord, Trial
from distgan.search.search_console import SearchDisplay
from distgan.search.search_state import SearchState
from distgan.search.trial_tables import TrialProgress
from distgan.text import plural
from distgan.tracking import formatting

_POLL_S = 0.3

# Tune keeps no tables, logs and snapshots: the search's record has everything.
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a configuration may have relative paths
}


@dataclass(frozen=True)
class SearchOutcome:
    """The search's record at the end, and the exit code for the command line."""

    record: SearchRecord
    exit_code: int


def tune_on_ray(spec: SearchSpec, address: str | None = None, concurrent: int | None = None) -> SearchOutcome:
    """Runs the search until its trials end, a limit is reached, or a signal stops it.

    A search that was killed at any moment is resumed. Raises UserError where trials do not fit the cluster.

    Args:
        address: of the Ray cluster; by default RAY_ADDRESS, or a cluster started on this machine.
        concurrent: trials at once; by default as many as fit.
    """
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    where = spec.search.url
    with stop_on_signals() as stop, SearchDisplay() as display:
        display.message(formatting.connecting(cluster_address(address)))
        sources = custom_sources(custom_names(spec.config.model_dump()).values())
        resume_hint = "resumes the search"
        with ray_cluster(address, sources, dashboard=True), report_losses(where, resume_hint):
            share = share_cluster(_resource_request(spec, concurrent))
            for note in spec.notes:
                display.message(note)
            display.message(_start_note(spec, share))
            for note in waiting_notes(share.resources) + spot_notes() + trial_spot_notes():
                display.message(note)
            state = SearchState(spec.record, spec.space, spec.sampler(), spec.search)
            display.update(state.snapshot(), {})
            mailbox, stopper = create_mailbox(SearchMailbox), SearchStopper()
            reason = _end_reason(state, 0.0, stop)  # of an earlier session
            if reason is None:
                with _tuner(spec, state, share, mailbox, stopper) as tuner:
                    fit = Background(tuner.fit)
                    _follow(state, mailbox, fit, stopper, display, stop)
            record = state.close(
                reason or stopper.reason or ("target" if reached(state.snapshot()) else "all trials ended")
            )
            display.update(record, {})
    return SearchOutcome(record, stop.exit_code)


def _resource_request(spec: SearchSpec, concurrent: int | None) -> ResourceRequest:
    scale, evaluation = spec.config.scale, spec.config.evaluation
    return ResourceRequest(
        workers=scale.workers,
        evaluation=evaluation.processors if evaluation.asynchronous else 0,
        device=scale.device,
        concurrent=concurrent,
        most=spec.record.limits.trials,
        placement=spec.config.placement,
    )


def _start_note(spec: SearchSpec, share: TrialResources) -> str:
    each = plural(spec.config.scale.workers, "worker")
    device = "" if share.resources.use_gpu else " and no GPU"
    verb = "resuming" if spec.resumes else "starting"
    return (
        f"{verb} {spec.record.name}: {plural(share.concurrent, 'trial')} at once, each of {each} with "
        f"{share.resources.describe()}{device}"
    )


@contextmanager
def _tuner(
    spec: SearchSpec, state: SearchState, share: TrialResources, mailbox: Any, stopper: SearchStopper
) -> Iterator[tune.Tuner]:
    """Tune with the search's trials. Its own state is in a temporary folder of this machine."""
    plan, trials = spec.record.plan, spec.record.trials
    in_actor, expected = share.in_actor, versions()
    scheduler, threads = build_scheduler(plan, share.concurrent), requested_threads()
    replay_trials(scheduler, plan, trials)

    def describe(trial: Trial) -> dict[str, Any]:
        return {
            "number": trial.number,
            "spec": spec.trial_spec(trial),
            "in_actor": in_actor,
            "versions": expected,
            "resources": share.resources,
            "runs_per_host": share.runs_per_host,
            "threads": threads,
            "start_kimg": 0.0 if trial.parent is None else state.kimg_of(trial.parent),
            "exempt": trial.repeats is not None,
            "mailbox": mailbox,
        }

    who = "worker 0" if in_actor else "its actor"

    def lost(number: int, error: Exception | None) -> str:
        if error is None:
            asked = mailbox.failure.remote(number)
        else:
            rules = failure_rules(spec.trial_spec(trials[number]))
            asked = mailbox.lost.remote(number, *actor_failure(error, who), *rules)
        found: str = ray.get(asked)
        return found

    with tempfile.TemporaryDirectory(prefix="distgan-") as folder:
        yield tune.Tuner(
            tune.with_resources(TrialRun, trial_actor(share)),
            tune_config=tune.TuneConfig(
                search_alg=StateSearcher(state, describe, stopper),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=share.concurrent,
                reuse_actors=True,
                trial_name_creator=lambda trial: f"trial-{trial.config['number']:04d}",
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}",
            ),
            run_config=tune.RunConfig(
                name=spec.record.name,
                storage_path=folder,
                stop=stopper,
                failure_config=tune.FailureConfig(max_failures=-1),  # the search's mailbox counts
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[StateCallback(state, stopper, mailbox.stop.remote, lost)],
                verbose=0,
            ),
        )


def trial_actor(share: TrialResources) -> tune.PlacementGroupFactory:
    """The resources of a trial's own actor, which is its worker or follows its workers."""
    bundle = share.resources.bundle if share.in_actor else Bundle({"CPU": TRIAL_CPUS}, share.actor_labels)
    selectors = [dict(bundle.labels)] if bundle.labels else None
    return tune.PlacementGroupFactory([dict(bundle.resources)], bundle_label_selector=selectors)


def _follow(
    state: SearchState, mailbox: Any, fit: Background, stopper: SearchStopper, display: SearchDisplay, stop: StopRequest
) -> None:
    """Shows the search until all trials have ended, and stops them where a limit is reached."""
    progress: dict[int, TrialProgress] = {}
    began = checked = time.monotonic()
    while not fit.ended(_POLL_S):
        events, _ = ray.get(mailbox.take.remote())
        for event in events:
            if isinstance(event, TrialStarted):
                state.trains(event.number)
            else:
                number, kimg, images_per_second = event
                progress[number] = TrialProgress(kimg, images_per_second)
        if time.monotonic() > checked + BEAT_S:
            checked = time.monotonic()
            for actor in ray.get(mailbox.frozen.remote()):
                ray.kill(actor)
        display.update(state.snapshot(), progress)
        reason = _end_reason(state, time.monotonic() - began, stop) if stopper.reason is None else None
        if reason is not None:
            stopper.begin(reason)
            if reason == "interrupted":
                display.message("stopping: trials save their state first; press Ctrl-C again to stop at once")
            mailbox.ask_to_stop.remote()
    state.raise_failure()
    fit.raise_error()


def _end_reason(state: SearchState, seconds: float, stop: StopRequest) -> SearchEnd | None:
    """Why the search ends now; None where it does not."""
    record = state.snapshot()
    limits = record.limits
    if stop.requested:
        return "interrupted"
    if reached(record):
        return "target"
    if limits.budget_hours is not None and seconds >= 3600 * limits.budget_hours:
        return "budget"
    if limits.budget_kimg is not None and state.kimg >= limits.budget_kimg:
        return "budget"
    return None
