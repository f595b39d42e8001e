"""A trial of a search: Tune's actor, which follows a run of Ray Train from evaluation to evaluation."""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import ExitStack
from typing import Any

import ray
from ray import tune

from distgan.errors import DivergedError
from distgan.evaluation.metrics.registry import higher_is_better
from distgan.launch.cluster import ray_storage
from distgan.launch.mailbox import Background
from distgan.launch.ray_errors import report_losses
from distgan.launch.ray_internals import time_limits
from distgan.launch.run_mailbox import create_run_mailbox
from distgan.launch.train import build_ray_trainer
from distgan.training.checkpoints import CheckpointStore
from distgan.training.early_stopping import monitored
from distgan.training.events import EvaluationResult, RunFinished, RunStarted, StepMetrics, Summary
from distgan.training.progress import Progress
from distgan.training.run_spec import RunSpec

_POLL_S = 0.3

# For a run to save its state after a request to stop.
_STOP_S = 540.0


class TrialRun(tune.Trainable):
    """An iteration of Tune lasts up to the next evaluation; the last one reports how the run ended.

    Evaluations of earlier sessions are reported first, so that the scheduler knows them.

    Its `config`: `number` of the trial, `spec`, `resources`, `runs_per_host` and `threads` (see
    `launch.train.build_ray_trainer`), `start_kimg` (where it took over another's state), `exempt` from the scheduler,
    and the search's `mailbox`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        spec: RunSpec = config["spec"]
        self._spec, self._number, self._exempt = spec, config["number"], config["exempt"]
        self._search_mailbox = config["mailbox"]
        self._sign = -1 if higher_is_better(spec.config.evaluation.monitor) else 1
        self._began = time.monotonic()
        self._kimg, self._score = config["start_kimg"], None  # type: float, float | None
        self._replay = deque(_measured(spec, config["start_kimg"]))
        self._events: deque[object] = deque()
        self._summary: Summary | None = None
        self._stop_asked = self._started = False
        self._may_never_start = bool(config["resources"].shortage)
        self._resources = ExitStack()
        storage = self._resources.enter_context(ray_storage(spec.run))
        self._resources.enter_context(time_limits(spec.config.scale))
        self._mailbox = create_run_mailbox(spec)
        trainer = build_ray_trainer(
            spec, self._mailbox, storage, config["resources"], config["runs_per_host"], config["threads"]
        )
        self._fit = Background(trainer.fit)

    def step(self) -> dict[str, Any]:
        if self._replay:
            kimg, value = self._replay.popleft()
            return self._measured(kimg, value, replayed=True)
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, EvaluationResult) and event.step > 0:
                    return self._measured(event.kimg, event.value, replayed=False)
                self._started = self._started or isinstance(event, RunStarted)
                if isinstance(event, StepMetrics):
                    self._search_mailbox.put.remote((self._number, event.kimg, event.images_per_second))
                if isinstance(event, RunFinished):
                    self._summary = event.summary
            ended = self._fit.ended(_POLL_S)
            events, error = ray.get(self._mailbox.take.remote())
            self._events.extend(events)
            if not self._stop_asked and ray.get(self._search_mailbox.stop_asked.remote()):
                self._stop_asked = True
                self._mailbox.ask_to_stop.remote()
            if self._events:
                continue
            if self._stop_asked and not self._started:
                return self._result("begun")  # nothing has been trained that could be lost
            if error is not None:
                diverged = isinstance(error, DivergedError)
                return self._result("diverged" if diverged else "failed", str(error).partition("\n")[0])
            if ended:
                with report_losses(self._spec.run.url):
                    self._fit.raise_error()
                if self._summary is None:
                    raise RuntimeError(f"{self._spec.run.url}: the run ended without a summary")  # Tune tries it again
                reason = self._summary.reason
                return self._result("begun" if reason == "interrupted" else reason)

    def cleanup(self) -> None:
        """Stops the run, which saves its state, and frees its workers."""
        self._mailbox.ask_to_stop.remote()
        if self._started or not self._may_never_start:
            self._fit.ended(_STOP_S)
        self._resources.close()

    def _measured(self, kimg: float, value: float, *, replayed: bool) -> dict[str, Any]:
        self._kimg = kimg
        if math.isfinite(value):
            score = self._sign * value
            self._score = score if self._score is None else min(score, self._score)
        return {**self._progress(), "value": value, "replayed": replayed}

    def _result(self, state: str, note: str = "") -> dict[str, Any]:
        return {**self._progress(), "done": True, "state": state, "note": note}

    def _progress(self) -> dict[str, Any]:
        """The fields of every result. `score` is the best value so far; lower is better."""
        score = {} if self._score is None else {"score": self._score}
        seconds = time.monotonic() - self._began
        return {"number": self._number, "kimg": self._kimg, "exempt": self._exempt, "seconds": seconds, **score}


def _measured(spec: RunSpec, start_kimg: float) -> list[tuple[float, float]]:
    """(kimg, value) of the evaluations of what the run has trained itself."""
    manifest = CheckpointStore(spec.run).newest_manifest()
    if manifest is None:
        return []
    evaluations = monitored(Progress.from_dict(manifest.progress).evaluations, spec.config.evaluation.monitor)
    return [(one.kimg, value) for one, value in evaluations if one.step > 0 and one.kimg > start_kimg]
