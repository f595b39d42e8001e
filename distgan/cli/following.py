"""A submitted job on the terminal, until it ends or somebody leaves it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from distgan.config.commands import command
from distgan.errors import UserError
from distgan.text import printable

if TYPE_CHECKING:
    from distgan.launch.jobs.client import Jobs, JobState

_INTERRUPTED = 130


def follow_job(jobs: Jobs, job: str) -> int:
    """Prints what the job prints; returns its exit code, or that of Ctrl-C for one that is left running."""
    from distgan.launch.jobs.logs import Follower

    follower = Follower(jobs, job, _write)
    stopping = False
    while True:
        try:
            return _ended(follower.follow())
        except KeyboardInterrupt:
            if stopping or not _wants_to_stop():
                _say(
                    f"job {job} runs on; follow it with `{command('jobs', 'logs', '-f', *jobs.named, job)}`, stop it "
                    f"with `{command('jobs', 'stop', *jobs.named, job)}`"
                )
                return _INTERRUPTED
            stopping = True
            jobs.ask_to_stop(job)
            _say("stopping: the state is saved first; Ctrl-C leaves it to that")


def _wants_to_stop() -> bool:
    """Asks; another Ctrl-C, the end of the input or no terminal at all is a no."""
    if not sys.stdin.isatty():
        return False
    try:
        while True:
            answer = input("\ndetach and leave the job running, or stop it? [d/s] ").strip().lower()
            if answer in {"d", "detach", "s", "stop"}:
                return answer.startswith("s")
    except (KeyboardInterrupt, EOFError):
        print()
        return False


def _ended(state: JobState) -> int:
    """The job's exit code. Raises UserError where it has not even begun, or Ray has lost it."""
    if state.status == "FAILED" and state.driver_code is None:
        raise UserError(f"job {state.id} failed: {_short(state.message)}")
    if state.status == "STOPPED":
        _say(f"job {state.id} was stopped; the same command goes on with what it was doing")
    return state.exit_code


def _short(message: str) -> str:
    """The end of Ray's words, which says why."""
    words = " ".join(message.split())
    return words if len(words) <= 500 else f"… {words[-500:]}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(message: str) -> None:
    print(f"distgan: {printable(message)}", file=sys.stderr, flush=True)
