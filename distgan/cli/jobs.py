"""`distgan jobs`: the submitted jobs of a cluster, and following one on the terminal."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from distgan.cli.options import ClusterName, JobsAddress
from distgan.errors import UserError
from distgan.text import command, printable

if TYPE_CHECKING:
    from distgan.launch.jobs.client import Jobs, JobState


_INTERRUPTED = 130


def follow_job(jobs: Jobs, job: str) -> int:
    """Prints the output of a job; returns its exit code, or 130 for one that is left running."""
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
    """Asks the user. Another Ctrl-C, the end of the input, or no terminal means no."""
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
    """The job's exit code. Raises UserError for a job that never started, or that Ray has lost."""
    if state.status == "FAILED" and state.driver_code is None:
        raise UserError(f"job {state.id} failed: {_short(state.message)}")
    if state.status == "STOPPED":
        _say(f"job {state.id} was stopped; to resume it, submit the same command again")
    return state.exit_code


def _short(message: str) -> str:
    """The end of Ray's message, where the reason is."""
    words = " ".join(message.split())
    return words if len(words) <= 500 else f"… {words[-500:]}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(message: str) -> None:
    print(f"distgan: {printable(message)}", file=sys.stderr, flush=True)


app = typer.Typer(help="Show the jobs of a cluster, and stop them.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id that `distgan submit` and `distgan jobs list` print.")]

_LOOK_S = 1.0


@app.command("list")
def list_jobs(address: JobsAddress = None, cluster: ClusterName = None) -> None:
    """List the submitted jobs, the oldest first."""
    from distgan.launch.jobs.command import command_of

    rows = [("ID", "STATE", "STARTED", "TIME", "COMMAND")]
    rows += [
        (state.id, _state(state), _since(state), _duration(state), command_of(state.entry_point))
        for state in _jobs(address, cluster).all()
    ]
    if len(rows) == 1:
        print("no jobs yet")
        return
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for *cells, what in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + f"  {what}"
        print(printable(line)[:wide])


@app.command()
def status(job: JobId, address: JobsAddress = None, cluster: ClusterName = None) -> None:
    """Show a job's state and command."""
    from distgan.launch.jobs.command import command_of

    state = _jobs(address, cluster).state(job)
    print(f"{printable(state.id)}: {_state(state)}, since {_since(state)}, for {_duration(state)}")
    print(printable(command_of(state.entry_point)))
    if state.status == "FAILED" and state.driver_code is None:
        print(printable(" ".join(state.message.split())))


@app.command()
def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Follow the output; the exit code is the job's.")
    ] = False,
    address: JobsAddress = None,
    cluster: ClusterName = None,
) -> None:
    """Print the output of a job."""
    jobs = _jobs(address, cluster)
    if not follow:
        print(jobs.log(job), end="")
        return

    jobs.state(job)
    raise typer.Exit(follow_job(jobs, job))


@app.command()
def stop(job: JobId, address: JobsAddress = None, cluster: ClusterName = None) -> None:
    """Stop a job and wait until it has saved its state. The same command resumes it."""
    jobs = _jobs(address, cluster)
    state = jobs.state(job)
    if state.has_ended:
        print(f"{job}: has ended already: {_state(state)}")
        return
    jobs.ask_to_stop(job)
    print(f"{job}: stopping; the state is saved first (Ctrl-C does not change that)", flush=True)
    while not state.has_ended:
        time.sleep(_LOOK_S)
        state = jobs.state(job)
    print(f"{job}: {_state(state)}")


def _jobs(address: str | None, cluster: str | None) -> Jobs:
    from distgan.launch.jobs.client import Jobs
    from distgan.launch.jobs.profiles import find_cluster

    return Jobs(find_cluster(address, cluster))


def _state(state: JobState) -> str:
    words = state.status.lower()
    return f"{words} ({state.exit_code})" if state.status == "FAILED" and state.driver_code is not None else words


def _since(state: JobState) -> str:
    return "" if state.began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(state.began))


def _duration(state: JobState) -> str:
    from distgan.tracking import formatting

    return "" if state.began is None else formatting.duration((state.ended or time.time()) - state.began)
