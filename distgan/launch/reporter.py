"""Reports a run from its first worker on Ray to the mailbox of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
import ray.train

from distgan.launch.preemption import Preemption, PreemptionSaves
from distgan.launch.ray_internals import preemption_notice
from distgan.tracking.run_folder import RunReporter
from distgan.training.events import EvaluationResult, Event, RunFinished, StepMetrics
from distgan.training.run_spec import RunSpec


class RayReporter(RunReporter):
    """Sends a run's events to the driver's mailbox, and its evaluations to Ray Train.

    Args:
        sink: takes the events; by default the mailbox.
        stop_asked: whether the run is to stop; by default the mailbox says so.
        read_notice: of a preemption (see `PreemptionSaves`).
    """

    def __init__(
        self,
        spec: RunSpec,
        mailbox: Any,
        sink: Callable[[Event], None] | None = None,
        stop_asked: Callable[[], bool] | None = None,
        read_notice: Callable[[], Preemption | None] = preemption_notice,
    ) -> None:
        def asked() -> bool:
            return bool(ray.get(mailbox.stop_asked.remote()))

        super().__init__(
            spec.run, sink or mailbox.put.remote, stop_asked or asked, spec.config.tracking, spec.patience_s
        )
        self._run_url, self._mailbox = spec.run.url, mailbox
        self._elastic = spec.config.scale.min_workers is not None
        self._preemption = PreemptionSaves(read_notice)

    def event(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            attempts, (kept, elapsed) = ray.get([self._mailbox.attempts.remote(), self._mailbox.kept_before.remote()])
            summary = replace(event.summary, attempts=attempts)
            event = RunFinished(summary.with_goodput(kept + summary.step_seconds, elapsed))
        if self._elastic and isinstance(event, StepMetrics):
            event = replace(event, terms=event.terms | {"scale/workers": ray.train.get_context().get_world_size()})
        super().event(event)

    def save_requested(self) -> str | None:
        terminated = ray.get(self._mailbox.terminated.remote())
        return self._preemption.take() or (f"{', '.join(terminated)} received SIGTERM" if terminated else None)

    def evaluated(self, event: EvaluationResult) -> None:
        """Reports an evaluation to Ray. Collective."""
        metrics = {event.metric: event.value, "kimg": event.kimg, "step": event.step, "run": self._run_url}
        ray.train.report(metrics if event.best is None else metrics | {"best": event.best})
