"""Failures of a run's workers: which are retried, how often, and what is said of each."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.train import FailureConfig, UserCallback

from distgan.config.plugins import error_text
from distgan.errors import UserError
from distgan.launch.mailbox import Mailbox, create_mailbox
from distgan.launch.ray_errors import is_preemption, losses_text
from distgan.tracking.formatting import kimg_count, plural
from distgan.training.events import Attempt, CheckpointSaved, RunStarted, WorkersLost
from distgan.training.run_spec import RunSpec

# Ray counts failures over a run's whole life; `RunMailbox` counts those without progress.
UNLIMITED = FailureConfig(max_failures=-1)


class WorkerError(Exception):
    """A worker's exception that a restart would repeat: of a user's own code, or a bug. Its text has the traceback."""

    @classmethod
    def of(cls, error: Exception, rank: int, node: str) -> WorkerError:
        trace = "".join(traceback.format_exception(error))
        return cls(f"worker {rank} on {node} raised {error_text(error)}; such an error is not retried\n\n{trace}")


class RunMailbox(Mailbox):
    """A mailbox that also counts the failures of a run's workers since its newest checkpoint.

    Args:
        run_url: names the run in the error.
        most: restarts without a new checkpoint, `scale.max_failures`.
    """

    def __init__(self, run_url: str, most: int) -> None:
        super().__init__()
        self._run_url, self._most = run_url, most
        self._kimg, self._count = 0.0, 0
        self._attempts: list[Attempt] = []

    def put(self, event: object) -> None:
        super().put(event)
        if isinstance(event, RunStarted):
            self._kimg = event.kimg
            self._attempts.append(Attempt(event.workers, event.kimg))
        elif isinstance(event, CheckpointSaved):
            self._kimg, self._count = event.kimg, 0

    def attempts(self) -> list[Attempt]:
        return self._attempts

    def lost(self, reason: str, counts: bool) -> str | None:
        """Records that workers were lost. Returns None where they restart, else the error that ends the run."""
        if self._attempts and self._attempts[-1].failure is None:
            self._attempts[-1] = replace(self._attempts[-1], failure=reason)
        else:  # lost before they had begun
            self._attempts.append(Attempt(0, self._kimg, reason))
        self._count += counts
        where = f"{kimg_count(self._kimg)} kimg"
        if self._count <= self._most:
            number = f"restart {self._count} of {self._most} without a new checkpoint" if counts else "restarting"
            super().put(WorkersLost(f"{reason}; {number}, from {where}"))
            return None
        tried = (
            f"restarted {plural(self._most, 'time')} without a new checkpoint (scale.max_failures)"
            if self._most
            else "not restarted (scale.max_failures=0)"
        )
        return f"{self._run_url}: {reason}; {tried}; look at that node; the same command resumes from {where}"


def create_run_mailbox(spec: RunSpec) -> Any:
    """A handle to a new `RunMailbox` of a run."""
    return create_mailbox(RunMailbox, spec.run.url, spec.config.scale.max_failures)


class FailurePolicy(UserCallback):
    """Ends a run at an error that no restart can fix, and after too many lost workers.

    Ray Train calls it in its controller, whenever workers have failed. It restarts them, unless this raises an error.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        error: Exception | None = ray.get(self._mailbox.error.remote())
        if error is not None:
            raise error
        reason = losses_text(worker_exceptions)
        if reason is None:
            raise next(iter(worker_exceptions.values()))
        counts = not any(map(is_preemption, worker_exceptions.values()))
        final: str | None = ray.get(self._mailbox.lost.remote(reason, counts))
        if final is not None:
            raise UserError(final)
