"""What `distgan train` does with its arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from distgan.config.load import load_config
from distgan.errors import UserError


def run_training(
    preset_or_file: str,
    overrides: Sequence[str],
    *,
    workers: int | None,
    address: str | None,
    storage: str,
    name: str | None,
    no_ray: bool,
    dry_run: bool,
    profile: bool,
    init_from: str | None,
) -> int:
    """Checks the job, then prints its plan or trains it; returns the exit code."""
    given = [*overrides, f"scale.workers={workers}"] if workers is not None else list(overrides)
    config = load_config(preset_or_file, given)

    if no_ray:
        _check_processes(config.scale.workers)
    if profile:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read as torch is imported: the profiler's own chatter
    from distgan.training.job import Job, make_plan

    asked = Job(config, name or Path(preset_or_file).stem, storage, profile, init_from)
    plan = make_plan(asked, dry_run=dry_run)
    job = plan.job
    console = Console(soft_wrap=True)
    if dry_run:
        from distgan.report.plan import print_plan

        print_plan(plan, console)
        return 0
    if no_ray:
        from distgan.launch.here import train_here

        outcome = train_here(job)
    else:
        from distgan.launch.train import train_on_ray

        outcome = train_on_ray(job, address)
    if outcome.summary is not None:
        from distgan.report.summary import summary_table

        console.print(summary_table(outcome.summary))
        console.print(f"run: {job.run.url}", highlight=False)
    return outcome.exit_code


def _check_processes(workers: int) -> None:
    """Raises UserError where more workers are asked for than there are processes without Ray."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if workers > 1 and processes != str(workers):
        where = "in this process alone" if processes == "1" else f"in the {processes} processes of torchrun"
        raise UserError(
            f"--no-ray trains {where}, not on {workers} workers: start `torchrun --nproc-per-node {workers} "
            f"-m distgan train ...`, or leave out --no-ray, or ask for 1 worker"
        )
