"""The run of a trial, as its actor of Tune sees it: a run of Ray Train, or one in the actor itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import ray

from distgan.errors import UserError
from distgan.launch.actor_run import ActorRun, WorkerPlace
from distgan.launch.async_evaluator import task_options
from distgan.launch.cluster import ray_storage
from distgan.launch.mailbox import Background
from distgan.launch.ray_errors import report_losses
from distgan.launch.ray_internals import time_limits, with_controller_here
from distgan.launch.train import build_ray_trainer, check_versions
from distgan.search.ray.search_mailbox import TrialMailbox
from distgan.training.events import RunStarted
from distgan.training.run_spec import RunSpec
from distgan.training.train import KeptParts

# For a run to save its state after a request to stop.
_STOP_S = 540.0


class Run(Protocol):
    """The run of a trial."""

    def take(self) -> tuple[Sequence[object], Exception | None]:
        """The events since the last call, and the error that no restart can fix, if any."""
        ...

    def ended(self, within_s: float) -> bool:
        """Whether the run has ended; waits up to `within_s` seconds for it."""
        ...

    def proceed(self) -> None:
        """An evaluation is known to Tune, and the run may go on."""
        ...

    def ask_to_stop(self) -> None:
        """The run saves its state and ends."""
        ...

    def raise_error(self) -> None:
        """Raises why the trial has to begin again in another process, if it does."""
        ...

    def close(self) -> bool:
        """Stops the run, which saves its state, and frees its workers. Returns whether it has ended."""
        ...


class TrainRun:
    """A run of Ray Train: its controller in this actor, and a group of workers. It does not wait after evaluations."""

    def __init__(self, config: dict[str, Any]) -> None:
        spec, resources = config["spec"], config["resources"]
        self._url, self._may_never_start = spec.run.url, bool(resources.shortage)
        self._started = False
        self._stack = ExitStack()
        storage = self._stack.enter_context(ray_storage(spec.run))
        self._stack.enter_context(time_limits(spec.config.scale))
        self._mailbox = TrialMailbox(config["mailbox"], config["number"])
        trainer = build_ray_trainer(spec, self._mailbox, storage, resources, config["runs_per_host"], config["threads"])
        self._fit = Background(with_controller_here(trainer).fit)

    def take(self) -> tuple[Sequence[object], Exception | None]:
        events, error = ray.get(self._mailbox.take.remote())
        self._started = self._started or any(isinstance(event, RunStarted) for event in events)
        return events, error

    def ended(self, within_s: float) -> bool:
        return self._fit.ended(within_s)

    def proceed(self) -> None:
        """Does nothing."""

    def ask_to_stop(self) -> None:
        self._mailbox.ask_to_stop.remote()

    def raise_error(self) -> None:
        with report_losses(self._url):
            self._fit.raise_error()

    def close(self) -> bool:
        if not self._fit.ended(0.0):  # else the request may reach the run of another actor
            self.ask_to_stop()
        if self._started or not self._may_never_start:
            self._fit.ended(_STOP_S)
        self._stack.close()
        return self._fit.ended(0.0)


class OwnRun(ActorRun):
    """A run of one worker in this actor."""

    def __init__(self, config: dict[str, Any], kept: KeptParts) -> None:
        spec, resources, number, search = config["spec"], config["resources"], config["number"], config["mailbox"]
        evaluation = task_options(resources) if spec.config.evaluation.asynchronous else None
        super().__init__(
            spec,
            TrialMailbox(search, number),
            WorkerPlace(resources.use_gpu, config["runs_per_host"], config["threads"], evaluation),
            kept,
            on_end=lambda: search.end.remote(number),
        )

    def close(self) -> bool:
        self.ask_to_stop()
        return self.ended(_STOP_S)


def failure_rules(spec: RunSpec) -> tuple[str, int, float]:
    """What a `RunMailbox` is made of: the run's URL, restarts without a new checkpoint, and seconds without a step."""
    return spec.run.url, spec.config.scale.max_failures, 60 * spec.config.scale.hang_minutes


def begin_run(config: dict[str, Any], kept: KeptParts) -> Run:
    """Begins the run of a trial (see `TrialRun`).

    Raises UserError for one that may not begin again, as it has failed before, and on a node with other versions.
    """
    check_versions(config["versions"])
    this = ray.get_runtime_context().current_actor if config["in_actor"] else None
    begun = config["mailbox"].begin.remote(config["number"], *failure_rules(config["spec"]), this)
    error: Exception | None = ray.get(begun)
    if error is not None:
        raise UserError(str(error).partition("\n")[0])
    return OwnRun(config, kept) if config["in_actor"] else TrainRun(config)
