"""What `distgan tune` does with its arguments."""

from __future__ import annotations

from dataclasses import replace

from distgan.cli.streams import output_is_log
from distgan.report.screen import Terminal
from distgan.search.options import SearchOptions
from distgan.text import printable, without_credentials


def run_search(options: SearchOptions, *, address: str | None, concurrent: int | None) -> int:
    """Checks the search and runs it; returns the exit code."""
    what = without_credentials(f"{options.source}, search {options.name} in {options.storage}")
    print(f"{printable(what)}: loading torch", flush=True)
    from distgan.search.planning import plan_search

    job = plan_search(options)
    from distgan.data.lease import claimed
    from distgan.launch.search.tune import Place, tune_on_ray
    from distgan.report.search.results import check_measured, print_results, write_results

    output_is_log()
    with claimed(job.search, "searches", "give another --name") as lease:
        job = replace(job, claim=lease.token)
        outcome = tune_on_ray(job, Place(address, concurrent))
        check_measured(outcome.record, job.search.url)
        write_results(outcome.record, job.search)
    print_results(outcome.record, job.search.url, Terminal(), address)
    return outcome.exit_code


def run_results(url: str) -> None:
    """Shows what a search has found."""
    from distgan.report.search.results import show_results

    show_results(url, Terminal())
