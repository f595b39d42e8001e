"""`distgan tune`: searches over configurations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from distgan.cli.streams import output_is_log
from distgan.search.plan import SearchOptions
from distgan.text import printable, without_credentials
from distgan.tracking.console import Terminal


def run_search(options: SearchOptions, *, address: str | None, concurrent: int | None) -> int:
    """Checks the search and runs it; returns the exit code."""
    what = without_credentials(f"{options.source}, search {options.name} in {options.storage}")
    print(f"{printable(what)}: loading torch", flush=True)
    from distgan.search.planning import plan_search

    spec = plan_search(options)
    from distgan.search.ray.tuner import tune_on_ray
    from distgan.search.results import check_measured, print_results, write_results
    from distgan.storage.lease import claimed

    output_is_log()
    with claimed(spec.search, "searches", "give another --name") as lease:
        spec = replace(spec, claim=lease.token)
        outcome = tune_on_ray(spec, address, concurrent)
        check_measured(outcome.record, spec.search.url)
        write_results(outcome.record, spec.search)
    print_results(outcome.record, spec.search.url, Terminal(), address)
    return outcome.exit_code


def run_results(url: str) -> None:
    """Shows the results of a search."""
    from distgan.search.results import show_results

    show_results(url, Terminal())


def tune(
    config: Annotated[
        str | None, typer.Argument(metavar="PRESET_OR_FILE", help="Preset or YAML file that all trials share.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration keys of all trials.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|KEY=DIST",
            help="Search space; may be given several times. By default the preset's own space.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of trials; with pbt and pb2, of members.")
    ] = 10,
    scheduler: Annotated[
        str, typer.Option(metavar="asha|hyperband|median|pbt|pb2|none", help="Scheduler that stops trials early.")
    ] = "asha",
    search: Annotated[str, typer.Option(metavar="random|grid|tpe|bayes", help="Sampler of the values.")] = "random",
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Metric of the trials: fid, fd_lite0, kid, recall, …; by default fid if its weights are there.",
        ),
    ] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Trials at once; by default as many as fit.")] = None,
    workers_per_trial: Annotated[int, typer.Option(min=1, max=4096, help="DDP workers of each trial.")] = 1,
    cpus_per_worker: Annotated[float | None, typer.Option(min=0.01, help="Sets placement.cpus_per_worker.")] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(min=0, help="Sets placement.gpus_per_worker.")] = None,
    grace_kimg: Annotated[
        float | None, typer.Option(help="Shortest trial: the first rung of asha and hyperband.")
    ] = None,
    reduction_factor: Annotated[float, typer.Option(help="One in this many trials passes a rung.")] = 4.0,
    interval_kimg: Annotated[
        float | None, typer.Option(help="Length of a generation of pbt and pb2; by default a tenth of training.kimg.")
    ] = None,
    grid_points: Annotated[int, typer.Option(min=1, help="Values of each range in a grid.")] = 3,
    target: Annotated[float | None, typer.Option(help="Value of the metric at which the search ends.")] = None,
    budget_kimg: Annotated[
        float | None, typer.Option(help="Limit for all trials together, in thousands of real images.")
    ] = None,
    budget_hours: Annotated[float | None, typer.Option(help="Limit for this session of the search.")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Runs of each of the best trials at the end, each with its own seed.")
    ] = 1,
    top: Annotated[int, typer.Option(min=1, help="Number of best trials that --seeds repeats.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws; the key `seed` is that of training.")] = 0,
    warm_start: Annotated[
        str | None, typer.Option(metavar="SEARCH", help="Earlier search whose results tpe and bayes use.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Folder or URL (s3://…) of the searches.")] = "runs",
    name: Annotated[
        str | None,
        typer.Option(help="Search name; by default PRESET-search. An existing search is resumed."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; by default RAY_ADDRESS, or one started on this machine.")
    ] = None,
    results: Annotated[
        str | None, typer.Option(metavar="SEARCH", help="Only show the results of a search, and draw its figures.")
    ] = None,
) -> None:
    """Search learning rates, critic steps, penalty weights or any other configuration key.

    Each trial is a run under STORAGE/NAME/trials. The same command resumes a search that was stopped or killed.

    Example: `distgan tune quickstart data.url=s3://bricks --space "optimizer.generator.lr=loguniform(1e-5, 1e-3)"`
    """
    from distgan.search.plan import SearchLimits, SearchOptions

    if results is not None:
        run_results(results)
        return
    if config is None:
        raise typer.BadParameter("name a preset or a file, or --results SEARCH", param_hint="PRESET_OR_FILE")
    limits = SearchLimits(
        trials=trials, seeds=seeds, top=top, target=target, budget_kimg=budget_kimg, budget_hours=budget_hours
    )
    per_worker = {"cpus_per_worker": cpus_per_worker, "gpus_per_worker": gpus_per_worker}
    given = list(overrides or [])
    given += [f"placement.{key}={amount}" for key, amount in per_worker.items() if amount is not None]
    options = SearchOptions(
        config, name or f"{Path(config).stem}-search", storage, given, space or [], metric=metric,
        workers=workers_per_trial, scheduler=scheduler, sampler=search, seed=seed, grid_points=grid_points,
        grace_kimg=grace_kimg, reduction_factor=reduction_factor, interval_kimg=interval_kimg, warm_start=warm_start,
        limits=limits,
    )  # fmt: skip
    raise typer.Exit(run_search(options, address=address, concurrent=concurrent))
