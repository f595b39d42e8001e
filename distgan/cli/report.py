"""`distgan report`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from distgan.text import printable


def report(
    sources: Annotated[
        list[str], typer.Argument(metavar="RUN|SEARCH...", help="Folders or URLs of runs, or of one search.")
    ],
    out: Annotated[str, typer.Option(metavar="FILE", help="The page. An existing file is replaced.")] = "report.html",
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page anew every 30 seconds until nothing trains there.")
    ] = False,
) -> None:
    """Write a page on a run, on several side by side, or on a search: samples, curves, health, configuration.

    One HTML file to open in a browser, to keep and to send: it needs no network.

    Example: `distgan report runs/first runs/second --out report.html`
    """
    from distgan.report.page import watch_report, write_report

    def log(line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

    try:
        size = watch_report(sources, out, log) if watch else write_report(sources, out)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print(printable(f"{out}: {size / 1e6:.1f} MB"))
