"""`distgan train`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distgan import api
from distgan.cli.options import worker_overrides
from distgan.cli.streams import output_is_log
from distgan.errors import Interrupted, UserError
from distgan.text import printable, without_credentials
from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.config.schema import Config


def train(
    config: Annotated[
        str | None,
        typer.Argument(metavar="PRESET_OR_FILE", help="Preset, or a YAML file or its URL."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Configuration keys, as optimizer.generator.lr=1e-4."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT", help="DDP workers. LOW:HIGH, as 1:8, on Ray: as many as there is room for at any time."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster, as HOST:PORT. By default RAY_ADDRESS or a local cluster.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Folder or URL (s3://…) of runs.")] = "runs",
    name: Annotated[
        str | None, typer.Option(help="Run name. An existing run is resumed. By default the preset's name.")
    ] = None,
    no_ray: Annotated[
        bool, typer.Option("--no-ray", help="Train without Ray, in this process or the processes of torchrun.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the whole configuration as YAML, and the plan to stderr; do not train."),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile some steps: a trace, and a table of their times.")
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_OR_CHECKPOINT",
            help="Start a new run with the weights of both networks and the EMA of another.",
        ),
    ] = None,
    continue_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_OR_CHECKPOINT",
            help="Start a new run with the whole state of another, by default its last checkpoint.",
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="With --init-from: take the weights that fit; a line says what is left out."),
    ] = False,
    from_trial: Annotated[
        str | None,
        typer.Option(
            metavar="SEARCH",
            help="Start a new run with the configuration and best state of a search's winner, instead of a preset.",
        ),
    ] = None,
) -> None:
    """Train a GAN, or resume a run.

    The run's folder STORAGE/NAME has checkpoints, config.yaml, metrics.jsonl, TensorBoard events, sample grids,
    curves.png and summary.json. Ctrl-C saves the state and ends the run; the same command resumes it. A finished run
    resumes with a higher training.kimg; after a plateau, with a higher evaluation.patience (or null). `distgan keys`
    lists the keys for KEY=VALUE. The config.yaml of a run, or the output of --dry-run, is a FILE for the same run.

    Example: `distgan train quickstart data.url=s3://bricks --workers 2 --storage s3://runs --name first`
    """
    began = time.monotonic()
    if config is None and from_trial is None:
        raise typer.BadParameter("name a preset or a file, or --from-trial SEARCH", param_hint="PRESET_OR_FILE")
    given = [*(overrides or []), *worker_overrides(workers)]
    if from_trial is not None:
        # In the place of a preset stands the first override.
        given = given if config is None else [config, *given]
        if init_from is not None or continue_from is not None:
            raise UserError("--from-trial starts with a trial's state; leave out --init-from and --continue-from")
    name = name or (Path(str(config)).stem if from_trial is None else None)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    if first:  # the imports below take seconds
        source = config if from_trial is None else f"the winner of {from_trial}"
        run = "" if name is None else f"run {name} "
        what = f"# dry run of {source}" if dry_run else f"{source}, {run}in {storage}"
        print(f"{printable(without_credentials(what))}: loading torch", flush=True)
    if profile:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read as torch is imported: the profiler's own log
    if from_trial is not None:
        from distgan.search.ranking import find_winner

        winner = find_winner(from_trial, given)
        loaded, continue_from, name = winner.config, winner.checkpoint, name or winner.name
    else:
        loaded = api.load_config(str(config), given)
    if dry_run:
        _print_plan(loaded, str(name), storage, init_from, continue_from, address, partial=partial, no_ray=no_ray)
        return
    output_is_log()
    exit_code, result = 0, None
    try:
        result = api.train(
            loaded, name=name, storage=storage, address=address, ray=not no_ray, profile=profile, init_from=init_from,
            continue_from=continue_from, partial=partial, began=began,
        )  # fmt: skip
    except Interrupted as stopped:
        exit_code, result = stopped.exit_code, stopped.result
    if first and result is not None:
        from distgan.tracking.tables import summary_table

        console = Terminal(soft_wrap=True)
        console.print(summary_table(result.summary))
        console.print(f"run: {result.url}", highlight=False)
    raise typer.Exit(exit_code)


def _print_plan(
    config: Config,
    name: str,
    storage: str,
    init_from: str | None,
    continue_from: str | None,
    address: str | None,
    *,
    partial: bool,
    no_ray: bool,
) -> None:
    """Prints the whole configuration as YAML, and the plan to standard error."""
    from distgan.launch.local import check_device, check_fixed, check_processes
    from distgan.tracking.tables import print_plan
    from distgan.tracking.tracker import check_trackers
    from distgan.training.run_spec import RunSpec, plan_run

    if no_ray:
        check_fixed(config.scale)
        check_processes(config.scale.workers)
    device = check_device(config.scale.device, config.scale.fewest, address, no_ray=no_ray)
    check_trackers(config.tracking)
    spec = RunSpec(config, name, storage, init_from=init_from, continue_from=continue_from, partial=partial)
    plan = plan_run(spec, dry_run=True)
    for text in plan.warnings:
        print(f"distgan: warning: {text}; beginning from another one", file=sys.stderr)
    if plan.left_out is not None:
        print(f"distgan: warning: {plan.left_out}", file=sys.stderr)
    print(plan.spec.as_yaml(), end="", flush=True)
    print_plan(plan, device, Terminal(soft_wrap=True, stderr=True))
