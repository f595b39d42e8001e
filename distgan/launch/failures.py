"""Failures of a run's workers: which are retried, how often, and what is said of each."""

from __future__ import annotations

import traceback
from typing import Any

import ray
from ray.train import FailureConfig

from distgan.config.plugins import error_text
from distgan.errors import UserError
from distgan.launch.ray_errors import restart_reason
from distgan.launch.ray_internals import RestartCallback, restart_failure

# Ray counts failures over a run's whole life; `RunMailbox` counts those without progress.
UNLIMITED = FailureConfig(max_failures=-1)


class WorkerError(Exception):
    """A worker's exception that a restart would repeat: of a user's own code, or a bug. Its text has the traceback."""

    @classmethod
    def of(cls, error: Exception, rank: int, node: str) -> WorkerError:
        trace = "".join(traceback.format_exception(error))
        return cls(f"worker {rank} on {node} raised {error_text(error)}; such an error is not retried\n\n{trace}")


class FailurePolicy(RestartCallback):
    """Ends a run at an error that no restart can fix, and after too many lost workers.

    Ray Train calls it in its controller before it restarts workers, which an error prevents.
    """

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        failure = restart_failure(current_state)
        if failure is None:
            return
        error: Exception | None = ray.get(self._mailbox.error.remote())
        if error is not None:
            raise error
        reason, counts = restart_reason(failure)
        if reason is None:
            raise next(iter(getattr(failure, "worker_failures", {0: failure}).values()))
        if not reason:
            return
        final: str | None = ray.get(self._mailbox.lost.remote(reason, counts))
        if final is not None:
            raise UserError(final)
