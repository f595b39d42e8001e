"""What `distgan tune` does with its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from distgan.config.load import without_credentials


def run_search(
    source: str,
    overrides: Sequence[str],
    space: Sequence[str],
    *,
    trials: int,
    scheduler: str,
    sampler: str,
    metric: str | None,
    concurrent: int | None,
    workers: int,
    cpus: float | None,
    gpus: float | None,
    grace_kimg: float | None,
    reduction_factor: float,
    interval_kimg: float | None,
    grid_points: int,
    target: float | None,
    budget_kimg: float | None,
    budget_hours: float | None,
    seeds: int,
    top: int,
    seed: int,
    warm_start: str | None,
    storage: str,
    name: str | None,
    address: str | None,
) -> int:
    """Checks the search and runs it; returns the exit code."""
    search_name = name or f"{Path(source).stem}-search"
    print(f"{repr(without_credentials(f'{source}, search {search_name} in {storage}'))[1:-1]}: loading", flush=True)
    from distgan.launch.fractions import check_worker
    from distgan.search.job import SearchOptions, plan_search
    from distgan.search.plan import Limits

    check_worker(cpus, gpus)
    job = plan_search(
        SearchOptions(
            source=source,
            name=search_name,
            storage=storage,
            overrides=overrides,
            space=space,
            metric=metric,
            workers=workers,
            scheduler=scheduler,
            sampler=sampler,
            seed=seed,
            grid_points=grid_points,
            grace_kimg=grace_kimg,
            reduction_factor=reduction_factor,
            interval_kimg=interval_kimg,
            warm_start=warm_start,
            limits=Limits(
                trials=trials,
                seeds=seeds,
                top=top,
                target=target,
                budget_kimg=budget_kimg,
                budget_hours=budget_hours,
            ),
        )
    )
    from distgan.launch.tune import Place, tune_on_ray
    from distgan.report.search_results import check_measured, print_results, write_results

    outcome = tune_on_ray(job, Place(address, concurrent, cpus, gpus))
    check_measured(outcome.record, job.search.url)
    write_results(outcome.record, job.search)
    print_results(outcome.record, job.search.url, Console())
    return outcome.exit_code


def run_results(url: str) -> None:
    """Shows what a search has found."""
    from distgan.report.search_results import show_results

    show_results(url, Console())
