"""Ray's messages and errors about lost nodes and processes, as one line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)
from ray.train import ControllerError, WorkerGroupError

from distgan.errors import UserError
from distgan.launch.ray_internals import edit_ray_messages

_LONGEST = 300


def shorten_ray_messages() -> None:
    """From now on this process prints Ray's message about a lost node as one line."""
    edit_ray_messages(_first_line)


def _first_line(message: str) -> str:
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    line = line.partition(" Possible reasons include")[0].partition(" This can happen when")[0]
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


_LOST = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError, LocalRayletDiedError)


@contextmanager
def report_losses(where: str, resume_hint: str = "resumes from the last checkpoint") -> Iterator[None]:
    """Turns Ray's errors about killed processes and dead nodes into a UserError; other errors pass.

    `where` names the run; `resume_hint` says what the same command does when it is run again.
    """
    try:
        yield
    except (WorkerGroupError, ControllerError, *_LOST) as error:
        lost = _loss_behind(error)
        if lost is None:
            raise
        if isinstance(lost, OutOfMemoryError):
            reason = "a node ran out of memory"
            remedy = "free memory there, or ask for fewer workers, or lower data.memory_mb"
        else:
            reason = "processes were killed or a node was lost"
            remedy = "look at the cluster's nodes"
        raise UserError(
            f"{where}: the Ray cluster lost processes of this run: {reason}; {remedy}; the same command {resume_hint}"
        ) from None


def _loss_behind(error: Exception) -> Exception | None:
    """The lost process or node behind an error, if any. Broken connections of the peers do not count."""
    if isinstance(error, WorkerGroupError):
        losses = [failure for failure in error.worker_failures.values() if isinstance(failure, _LOST)]
        return next(iter(losses), None)
    if isinstance(error, ControllerError):
        return error.controller_failure if isinstance(error.controller_failure, _LOST) else None
    return error
