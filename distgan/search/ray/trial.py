"""A trial of a search: Tune's actor, which follows a run from evaluation to evaluation."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

import ray
from ray import tune

from distgan.errors import DivergedError, UserError
from distgan.evaluation.metrics.registry import higher_is_better
from distgan.search.ray.search_mailbox import TrialStarted
from distgan.search.ray.trial_runs import Run, begin_run
from distgan.training.checkpoints import CheckpointStore
from distgan.training.early_stopping import monitored
from distgan.training.events import EvaluationResult, RunFinished, RunStarted, StepMetrics, Summary
from distgan.training.progress import Progress
from distgan.training.run_spec import RunSpec
from distgan.training.train import KeptParts

_POLL_S = 0.3


class TrialRun(tune.Trainable):
    """An iteration of Tune lasts up to the next evaluation; the last one reports how the run ended.

    Evaluations of earlier sessions are reported first, so that the scheduler knows them. An actor takes one trial after
    another, and keeps what those share that run in it.

    Its `config`: `number` of the trial, `spec`, `in_actor` (whether it runs in this actor, not on Ray Train),
    `resources`, `runs_per_host` and `threads` (see `launch.train.build_ray_trainer`), `versions` of the driver,
    `start_kimg` (where it took over another's state), `exempt` from the scheduler, and the search's `mailbox`.
    """

    _stop_asked: bool
    _started: bool  # whether it trains
    _waits: bool  # after an evaluation that Tune has been told

    def setup(self, config: dict[str, Any]) -> None:
        self._kept = KeptParts()
        self._run: Run | None = None
        self._plan(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes another trial, once the run of the last one has ended."""
        if not self._close():
            raise RuntimeError(f"{self._spec.run.url}: the run does not end")  # a new actor gets the other trial
        self._plan(new_config)
        return True

    def step(self) -> dict[str, Any]:
        try:
            run = self._begun()
        except UserError as refused:
            return self._result("failed", str(refused).partition("\n")[0])
        if self._replay:
            kimg, value = self._replay.popleft()
            return self._measured(kimg, value, replayed=True)
        if self._waits:
            self._waits = False
            run.proceed()
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, EvaluationResult):
                    if event.step > 0:
                        self._waits = True
                        return self._measured(event.kimg, event.value, replayed=False)
                    run.proceed()
                self._follow(event)
            ended = run.ended(_POLL_S)
            events, error = run.take()
            self._events.extend(events)
            if not self._stop_asked and ray.get(self._search_mailbox.stop_asked.remote()):
                self._stop_asked = True
                run.ask_to_stop()
            if self._events:
                continue
            if self._stop_asked and not self._started:
                return self._result("begun")  # nothing has been trained that could be lost
            if error is not None:
                diverged = isinstance(error, DivergedError)
                return self._result("diverged" if diverged else "failed", str(error).partition("\n")[0])
            if ended:
                run.raise_error()
                if self._summary is None:
                    raise RuntimeError(f"{self._spec.run.url}: the run ended without a summary")  # Tune tries it again
                self._close()
                reason = self._summary.reason
                return self._result("begun" if reason == "interrupted" else reason)

    def cleanup(self) -> None:
        """Stops the run, which saves its state, and frees its workers."""
        self._close()

    def _close(self) -> bool:
        run, self._run = self._run, None
        return run is None or run.close()

    def _plan(self, config: dict[str, Any]) -> None:
        """What `step` needs to know of the trial. The first one begins it: Tune then tells an error as the trial's."""
        spec: RunSpec = config["spec"]
        self._trial, self._spec, self._number, self._exempt = config, spec, config["number"], config["exempt"]
        self._search_mailbox = config["mailbox"]
        self._sign = -1 if higher_is_better(spec.config.evaluation.monitor) else 1
        self._began = time.monotonic()
        self._kimg, self._score = config["start_kimg"], None  # type: float, float | None
        self._replay: deque[tuple[float, float]] = deque()
        self._events: deque[object] = deque()
        self._summary: Summary | None = None
        self._stop_asked = self._started = self._waits = False

    def _begun(self) -> Run:
        if self._run is None:
            self._replay.extend(_measured(self._spec, self._trial["start_kimg"]))
            self._run = begin_run(self._trial, self._kept)
        return self._run

    def _follow(self, event: object) -> None:
        if isinstance(event, RunStarted):
            self._started = True
            self._search_mailbox.put.remote(TrialStarted(self._number))
        if isinstance(event, StepMetrics):
            self._search_mailbox.put.remote((self._number, event.kimg, event.images_per_second))
        if isinstance(event, RunFinished):
            self._summary = event.summary

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
