"""Ray's messages and errors about lost nodes and processes, as one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch.distributed as dist
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)
from ray.train import ControllerError, WorkerGroupError

from distgan.errors import UserError
from distgan.launch.ray_internals import (
    edit_ray_messages,
    health_check_failure,
    is_hang,
    is_startup_failure,
    is_startup_timeout,
    preemption_of,
)

_LONGEST = 300


def shorten_ray_messages() -> None:
    """From now on this process prints Ray's message about a lost node as one line.

    Those about killed processes are left out: the errors and notes of distgan say which they were.
    """
    edit_ray_messages(_first_line)


_KILLED = "A worker died or was killed while executing a task"


def _first_line(message: str) -> str:
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    if line.startswith(_KILLED):
        return ""
    line = line.partition(" Possible reasons include")[0].partition(" This can happen when")[0]
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


_STARTUP = "workers died while they started"

_LOST = (RayActorError, OutOfMemoryError, NodeDiedError, WorkerCrashedError, LocalRayletDiedError)

# What gloo, NCCL and the store say when a peer is gone. gloo's errors have no class of their own.
_BROKEN = re.compile(r"gloo|nccl|connection|socket|broken pipe|peer|timed out", re.IGNORECASE)


def is_broken_connection(error: BaseException) -> bool:
    """Whether a worker's error says that it lost the others, of which one was probably killed."""
    if isinstance(error, dist.DistError | ConnectionError | TimeoutError):
        return True
    return type(error) is RuntimeError and _BROKEN.search(str(error)) is not None


def restart_reason(failure: Exception) -> tuple[str | None, bool]:
    """Why Ray Train restarts workers, as text, and whether it counts as a failure.

    The text is None for an error that is no loss, and empty where no worker has been lost: they wait for places.
    """
    preemption = preemption_of(failure)
    if preemption is not None:
        return f"{preemption.places()} was preempted", False
    if isinstance(failure, WorkerGroupError):
        errors = failure.worker_failures
        return losses_text(errors), not any(map(_is_preempted, errors.values()))
    if isinstance(failure, ControllerError):
        behind = failure.controller_failure
        if is_startup_failure(behind):
            return _STARTUP, True
        return "" if is_startup_timeout(behind) else loss_text(behind), True
    return None, True


def _is_preempted(error: BaseException) -> bool:
    """Whether a cloud took the worker's node back, which it had announced."""
    behind = health_check_failure(error)
    return isinstance(behind, RayActorError) and behind.preempted


def actor_failure(error: Exception, who: str) -> tuple[str, bool]:
    """Why a trial's actor, or its run, was lost, as text that begins with `who`, and whether it counts as a failure."""
    behind = getattr(error, "cause", None) or error
    text = losses_text({0: behind}) or f"worker 0 raised {type(behind).__name__}: {behind!s:.200}"
    return text.replace("worker 0", who, 1), not _is_preempted(behind)


def losses_text(failures: Mapping[int, BaseException]) -> str | None:
    """The lost workers of a group by rank, as `worker 1 on 10.0.0.2: its process died`; None if none was lost.

    Broken connections of the others count only where nothing else is known.
    """
    known = {rank: text for rank, error in failures.items() if (text := loss_text(error)) is not None}
    if known:
        return ", ".join(f"worker {rank}{_place(failures[rank])}: {known[rank]}" for rank in sorted(known))
    broken = sorted(rank for rank, error in failures.items() if is_broken_connection(error))
    if not broken:
        return None
    reason = " ".join(str(failures[broken[0]]).split())
    return f"worker {broken[0]} lost its connection to the others: {reason:.200}"


def loss_text(error: BaseException) -> str | None:
    """Why a process was lost; None for an error that is no loss."""
    error = health_check_failure(error)
    if isinstance(error, OutOfMemoryError) or "running low on memory" in str(error):
        return "its node ran out of memory"
    if isinstance(error, NodeDiedError) or "its node has died" in str(error):
        return "its node was lost"
    if isinstance(error, _LOST):
        return "its process died"
    return "it stopped answering" if is_hang(error) else None


def _place(error: BaseException) -> str:
    """` on ADDRESS`, as far as Ray's text has the address of the node."""
    found = re.search(r"\bip: ([0-9a-fA-F.:]+)", str(error)) or re.search(r"node_ip='?([0-9a-fA-F.:]+)", str(error))
    return "" if found is None else f" on {found[1]}"


@contextmanager
def report_losses(where: str, resume_hint: str = "resumes from the last checkpoint") -> Iterator[None]:
    """Turns Ray's errors about killed processes and dead nodes into a UserError; other errors pass.

    `where` names the run; `resume_hint` says what the same command does when it is run again. A UserError that ended
    Ray Train's controller is raised as it is.
    """
    try:
        yield
    except (WorkerGroupError, ControllerError, *_LOST) as error:
        if isinstance(error, ControllerError) and isinstance(error.controller_failure, UserError):
            raise error.controller_failure from None
        reason = _losses_behind(error)
        if reason is None:
            raise
        remedy = (
            "free memory there, or ask for fewer workers, or lower data.memory_mb"
            if "memory" in reason
            else "look at the cluster's nodes"
        )
        raise UserError(
            f"{where}: the Ray cluster lost processes of this run: {reason}; {remedy}; the same command {resume_hint}"
        ) from None


def _losses_behind(error: Exception) -> str | None:
    """What was lost, as text; None for other errors. Broken connections of the peers do not count."""
    if isinstance(error, WorkerGroupError):
        return losses_text(error.worker_failures) if any(map(loss_text, error.worker_failures.values())) else None
    if isinstance(error, ControllerError):
        failure = error.controller_failure
        return _STARTUP if is_startup_failure(failure) else loss_text(failure)
    found, reason = re.search(r"class_name: (\w+)", str(error)), loss_text(error)
    return f"{found[1]}{_place(error)}: {reason}" if found is not None else reason
