"""`distgan jobs`: what has been submitted to a cluster."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from distgan.cli.options import ClusterName, JobsAddress
from distgan.text import printable

if TYPE_CHECKING:
    from distgan.launch.jobs.client import Jobs, JobState

app = typer.Typer(help="Look at the jobs of a cluster, and stop them.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="ID", help="As `distgan submit` and `distgan jobs list` print it.")]

_LOOK_S = 1.0


@app.command("list")
def list_jobs(address: JobsAddress = None, cluster: ClusterName = None) -> None:
    """List the jobs that were submitted, the oldest first."""
    from distgan.submission.command import command_of

    rows = [("ID", "STATE", "SINCE", "FOR", "WHAT")]
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
    from distgan.submission.command import command_of

    state = _jobs(address, cluster).state(job)
    print(f"{printable(state.id)}: {_state(state)}, since {_since(state)}, for {_duration(state)}")
    print(printable(command_of(state.entry_point)))
    if state.status == "FAILED" and state.driver_code is None:
        print(printable(" ".join(state.message.split())))


@app.command()
def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Until the job ends, whose exit code this has.")
    ] = False,
    address: JobsAddress = None,
    cluster: ClusterName = None,
) -> None:
    """Print what a job has printed."""
    jobs = _jobs(address, cluster)
    if not follow:
        print(jobs.log(job), end="")
        return
    from distgan.cli.following import follow_job

    jobs.state(job)
    raise typer.Exit(follow_job(jobs, job))


@app.command()
def stop(job: JobId, address: JobsAddress = None, cluster: ClusterName = None) -> None:
    """Stop a job: it saves its state first, and the same command goes on with it. Waits for that."""
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
    from distgan.submission.profiles import find_cluster

    return Jobs(find_cluster(address, cluster))


def _state(state: JobState) -> str:
    words = state.status.lower()
    return f"{words} ({state.exit_code})" if state.status == "FAILED" and state.driver_code is not None else words


def _since(state: JobState) -> str:
    return "" if state.began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(state.began))


def _duration(state: JobState) -> str:
    from distgan.report import words

    return "" if state.began is None else words.duration((state.ended or time.time()) - state.began)
