"""`distgan tune`: searches over configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from distgan import api
from distgan.cli.streams import output_is_log
from distgan.errors import Interrupted
from distgan.text import plural, printable, without_credentials
from distgan.tracking.console import Terminal


def show_search(url: str, watch: bool, to_optuna: str | None) -> None:
    """What `--results` does."""
    if watch and to_optuna is not None:
        raise typer.BadParameter("cannot go with --watch", param_hint="--to-optuna")
    if to_optuna is not None:
        from distgan.search.optuna_study import export_study

        study, trials = export_study(url, to_optuna)
        place = without_credentials(to_optuna)
        print(printable(f"{place}: study {study}, {plural(trials, 'trial')}; see it with `optuna-dashboard {place}`"))
    elif watch:
        from distgan.search.watching import watch_results

        try:
            watch_results(url, Terminal())
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    else:
        from distgan.search.results import show_results

        show_results(url, Terminal())


def print_cost(config: str, space: list[str] | None, asked: dict[str, Any]) -> None:
    """Prints what a search would cost (`--dry-run`)."""
    from distgan.search.cost import cost_lines

    for heading, text in cost_lines(api.search_cost(config, space, **asked)):
        print(printable(f"{heading:<11} {text}"))


def tune(
    config: Annotated[
        str | None,
        typer.Argument(metavar="PRESET_OR_FILE", help="Configuration of all trials: a preset, or a YAML file."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Configuration keys, the same for all trials.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|KEY=DIST",
            help="Searched keys, may be given several times: a file, a preset's name, or KEY=DISTRIBUTION. "
            "By default the section `search` of the preset or file.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="Number of trials; for pbt and pb2, of members.")] = 10,
    scheduler: Annotated[
        str, typer.Option(metavar="asha|hyperband|median|pbt|pb2|none", help="Scheduler that stops trials early.")
    ] = "asha",
    search: Annotated[str, typer.Option(metavar="random|grid|tpe|bayes", help="Sampler of the values.")] = "random",
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Metric that ranks trials: fid, fd_lite0, kid, recall, … By default fid if its weights are there, "
            "else the configuration's.",
        ),
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials that run at once. By default as many as fit.")
    ] = None,
    workers_per_trial: Annotated[int, typer.Option(min=1, max=4096, help="DDP workers of each trial.")] = 1,
    cpus_per_worker: Annotated[float | None, typer.Option(min=0.01, help="Sets placement.cpus_per_worker.")] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(min=0, help="Sets placement.gpus_per_worker.")] = None,
    grace_kimg: Annotated[
        float | None, typer.Option(help="No trial is stopped earlier; the first rung of asha and hyperband.")
    ] = None,
    reduction_factor: Annotated[float, typer.Option(help="One of this many trials passes a rung.")] = 4.0,
    interval_kimg: Annotated[
        float | None, typer.Option(help="Length of a generation of pbt and pb2. By default a tenth of training.kimg.")
    ] = None,
    grid_points: Annotated[int, typer.Option(min=1, help="Values of each range in a grid.")] = 3,
    target: Annotated[float | None, typer.Option(help="End the search when a trial reaches this value.")] = None,
    budget_kimg: Annotated[
        float | None, typer.Option(help="End the search after this number of kimg, over all trials.")
    ] = None,
    budget_hours: Annotated[float | None, typer.Option(help="End this session of the search after this time.")] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Runs of each of the best trials at the end, each with its own seed.")
    ] = 1,
    top: Annotated[int, typer.Option(min=1, help="Number of best trials that --seeds repeats.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampler; that of training is the key `seed`.")] = 0,
    warm_start: Annotated[
        str | None, typer.Option(metavar="SEARCH", help="Earlier search that tpe and bayes learn from.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Folder or URL (s3://…) of searches.")] = "runs",
    name: Annotated[
        str | None,
        typer.Option(help="Search name. An existing search is resumed. By default PRESET-search."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster, as HOST:PORT. By default RAY_ADDRESS or a local cluster.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what the search costs, from a few steps here; do not search.")
    ] = False,
    results: Annotated[
        str | None,
        typer.Option(metavar="SEARCH", help="Show the results of a search and draw its figures; do not search."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="With --results: follow a search until it ends; writes nothing.")
    ] = False,
    to_optuna: Annotated[
        str | None,
        typer.Option(
            metavar="STORAGE",
            help="With --results: write the search as a study for optuna-dashboard, as sqlite:///search.db.",
        ),
    ] = None,
) -> None:
    """Search learning rates, penalty weights or any other keys.

    Each trial is a run under STORAGE/NAME/trials. Trials with a bad distance are stopped early. A search that was
    stopped or killed resumes with the same command.

    Example: `distgan tune quickstart data.url=s3://bricks --space "optimizer.generator.lr=loguniform(1e-5, 1e-3)"`
    """
    if results is not None:
        show_search(results, watch, to_optuna)
        return
    if watch or to_optuna is not None:
        raise typer.BadParameter("needs --results SEARCH", param_hint="--watch" if watch else "--to-optuna")
    if config is None:
        raise typer.BadParameter("name a preset or a file, or --results SEARCH", param_hint="PRESET_OR_FILE")
    per_worker = {"cpus_per_worker": cpus_per_worker, "gpus_per_worker": gpus_per_worker}
    given = list(overrides or [])
    given += [f"placement.{key}={amount}" for key, amount in per_worker.items() if amount is not None]
    name = name or f"{Path(config).stem}-search"
    what = without_credentials(f"{config}, search {name} in {storage}")
    print(f"{'# dry run of ' * dry_run}{printable(what)}: loading torch", flush=True)
    asked: dict[str, Any] = {
        "overrides": given, "name": name, "storage": storage, "trials": trials, "scheduler": scheduler,
        "search": search, "metric": metric, "workers_per_trial": workers_per_trial, "grace_kimg": grace_kimg,
        "reduction_factor": reduction_factor, "interval_kimg": interval_kimg, "grid_points": grid_points,
        "target": target, "budget_kimg": budget_kimg, "budget_hours": budget_hours, "seeds": seeds, "top": top,
        "seed": seed, "warm_start": warm_start,
    }  # fmt: skip
    if dry_run:
        print_cost(config, space, asked)
        return
    from distgan.search.results import print_results

    output_is_log()
    exit_code = 0
    try:
        found = api.tune(config, space, **asked, concurrent=concurrent, address=address)
    except Interrupted as stopped:
        exit_code, found = stopped.exit_code, stopped.result
    print_results(found.record, found.url, Terminal(), address)
    raise typer.Exit(exit_code)
