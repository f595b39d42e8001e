"""A trial of a search: Tune's actor around a run of Ray Train, which it follows from evaluation to evaluation."""

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
from distgan.launch.mailbox import Background, create_mailbox
from distgan.launch.ray_errors import lost_processes_as_one_line
from distgan.launch.train import build_trainer
from distgan.training.checkpoints import CheckpointStore
from distgan.training.early_stopping import monitored
from distgan.training.events import EvaluationResult, RunFinished, RunStarted, StepMetrics, Summary
from distgan.training.progress import Progress
from distgan.training.run_spec import RunSpec

_POLL_S = 0.3

# A run that is asked to stop saves its state first.
_STOP_S = 540.0


class TrialRun(tune.Trainable):
    """Each of Tune's iterations is up to the next evaluation, and a last one tells how the run ended.

    What the run has measured in earlier sessions is reported first, so that the scheduler knows of it.

    Its `config`: `number` of the trial, `job`, `resources`, `runs_a_host` and `threads` (see
    `launch.train.build_trainer`), `begins_at_kimg` (where it took over another's state), `exempt` from the scheduler,
    and the search's `board`.
    """

    def setup(self, config: dict[str, Any]) -> None:
        job: RunSpec = config["job"]
        self._job, self._number, self._exempt = job, config["number"], config["exempt"]
        self._search_board = config["board"]
        self._sign = -1 if higher_is_better(job.config.evaluation.monitor) else 1
        self._began = time.monotonic()
        self._kimg, self._score = config["begins_at_kimg"], None  # type: float, float | None
        self._replay = deque(_measured(job, config["begins_at_kimg"]))
        self._events: deque[object] = deque()
        self._summary: Summary | None = None
        self._stop_asked = self._started = False
        self._may_never_start = bool(config["resources"].lacking)
        self._resources = ExitStack()
        notes = self._resources.enter_context(ray_storage(job.run))
        self._board = create_mailbox()
        trainer = build_trainer(job, self._board, notes, config["resources"], config["runs_a_host"], config["threads"])
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
                    self._search_board.put.remote((self._number, event.kimg, event.images_per_second))
                if isinstance(event, RunFinished):
                    self._summary = event.summary
            ended = self._fit.ended(_POLL_S)
            events, mistake = ray.get(self._board.take.remote())
            self._events.extend(events)
            if not self._stop_asked and ray.get(self._search_board.stop_asked.remote()):
                self._stop_asked = True
                self._board.ask_to_stop.remote()
            if self._events:
                continue
            if self._stop_asked and not self._started:
                return self._result("begun")  # nothing has been trained that could be lost
            if mistake is not None:
                diverged = isinstance(mistake, DivergedError)
                return self._result("diverged" if diverged else "failed", str(mistake))
            if ended:
                with lost_processes_as_one_line(self._job.run.url):
                    self._fit.raise_error()
                if self._summary is None:
                    raise RuntimeError(f"{self._job.run.url}: the run ended without a word")  # Tune tries it again
                reason = self._summary.reason
                return self._result("begun" if reason == "interrupted" else reason)

    def cleanup(self) -> None:
        """Ends the run, its state saved, and gives its workers back."""
        self._board.ask_to_stop.remote()
        if self._started or not self._may_never_start:
            self._fit.ended(_STOP_S)
        self._resources.close()

    def _measured(self, kimg: float, value: float, *, replayed: bool) -> dict[str, Any]:
        self._kimg = kimg
        if math.isfinite(value):
            score = self._sign * value
            self._score = score if self._score is None else min(score, self._score)
        return {**self._place(), "value": value, "replayed": replayed}

    def _result(self, state: str, note: str = "") -> dict[str, Any]:
        return {**self._place(), "done": True, "state": state, "note": note}

    def _place(self) -> dict[str, Any]:
        """What every result has: `score` is the best so far, the lower, the better."""
        score = {} if self._score is None else {"score": self._score}
        seconds = time.monotonic() - self._began
        return {"number": self._number, "kimg": self._kimg, "exempt": self._exempt, "seconds": seconds, **score}


def _measured(job: RunSpec, begins_at_kimg: float) -> list[tuple[float, float]]:
    """(kimg, value) of the evaluations of what the run has trained itself."""
    manifest = CheckpointStore(job.run).newest_manifest()
    if manifest is None:
        return []
    evaluations = monitored(Progress.from_dict(manifest.progress).evaluations, job.config.evaluation.monitor)
    return [(one.kimg, value) for one, value in evaluations if one.step > 0 and one.kimg > begins_at_kimg]
