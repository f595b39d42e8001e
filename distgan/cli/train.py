"""`distgan train`: one training run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distgan.cli.streams import output_is_log
from distgan.errors import UserError
from distgan.text import printable, without_credentials
from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.storage.lease import Lease
    from distgan.training.run_spec import RunSpec


def run_training(
    preset_or_file: str | None,
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
    continue_from: str | None,
    from_trial: str | None = None,
) -> int:
    """Checks the run, then prints its plan or trains; returns the exit code."""
    begun = time.monotonic()
    if from_trial is not None:
        # The argument in the place of a preset is the first override.
        overrides = overrides if preset_or_file is None else [preset_or_file, *overrides]
        if init_from is not None or continue_from is not None:
            raise UserError("--from-trial begins with a trial's state; leave out --init-from and --continue-from")
    run_name = name or (Path(str(preset_or_file)).stem if from_trial is None else None)
    if os.environ.get("RANK", "0") == "0":  # of torchrun; the imports below take seconds
        source = preset_or_file if from_trial is None else f"the winner of {from_trial}"
        run = "" if run_name is None else f"run {run_name} "
        what = f"# dry run of {source}" if dry_run else f"{source}, {run}in {storage}"
        print(f"{printable(without_credentials(what))}: loading torch", flush=True)
    if profile:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # hides the profiler's own messages; read as torch is imported
    from distgan.launch.local import check_device
    from distgan.training.run_spec import RunSpec, plan_run, read_configuration

    given = [*overrides, f"scale.workers={workers}"] if workers is not None else list(overrides)
    if from_trial is not None:
        from distgan.search.ranking import find_winner

        winner = find_winner(from_trial, given)
        config, continue_from, run_name = winner.config, winner.checkpoint, run_name or winner.name
    else:
        config = read_configuration(str(preset_or_file), given)
    if no_ray:
        from distgan.launch.local import check_processes

        check_processes(config.scale.workers)
    device = check_device(config.scale.device, config.scale.workers, address, no_ray=no_ray)
    plan = plan_run(RunSpec(config, str(run_name), storage, profile, init_from, continue_from), dry_run=dry_run)
    spec = plan.job
    if os.environ.get("RANK", "0") == "0":
        for text in plan.warnings:
            print(f"distgan: warning: {text}; starting from another one", file=sys.stderr)
    if dry_run:
        from distgan.tracking.tables import print_plan

        print(spec.as_yaml(), end="", flush=True)
        print_plan(plan, device, Terminal(soft_wrap=True, stderr=True))
        return 0
    output_is_log()
    with _claim(spec) as lease:
        claim_lost = (lambda: False) if lease is None else (lambda: lease.lost)
        spec = spec if lease is None else replace(spec, claim=lease.token)
        if no_ray:
            from distgan.launch.local import train_local

            outcome = train_local(spec, claim_lost)
        else:
            from distgan.launch.train import train_on_ray

            outcome = train_on_ray(spec, address, claim_lost)
    summary = outcome.timed(begun, time.monotonic())
    if summary is not None:
        from distgan.tracking.tables import summary_table

        console = Terminal(soft_wrap=True)
        console.print(summary_table(summary))
        console.print(f"run: {spec.run.url}", highlight=False)
    return outcome.exit_code


def _claim(spec: RunSpec) -> AbstractContextManager[Lease | None]:
    """The claim of the run's folder; of torchrun's processes only the first writes there."""
    from distgan.storage.lease import claimed

    if os.environ.get("RANK", "0") != "0":
        return nullcontext()
    return claimed(spec.run, "trains this run", "give another --name")
