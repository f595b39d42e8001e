"""`distgan report`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from distgan.cli.options import TrustCode
from distgan.text import printable


def report(
    sources: Annotated[
        list[str], typer.Argument(metavar="RUN|SEARCH...", help="Folders or URLs of runs, or of one search.")
    ],
    out: Annotated[str, typer.Option(metavar="FILE", help="The page. An existing file is replaced.")] = "report.html",
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Add images between latents, by the best checkpoint.")
    ] = False,
    trust_code: TrustCode = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page anew every 30 seconds until nothing trains there.")
    ] = False,
) -> None:
    """Write a page on a run, on several side by side, or on a search: samples, curves, health, configuration.

    One HTML file to open in a browser, to keep and to send: it needs no network.

    Example: `distgan report runs/first runs/second --out report.html`
    """
    from distgan.report.page import Interpolation, watch_report, write_report

    def log(line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

    strips = Interpolation(trust_code) if interpolate else None
    try:
        size = watch_report(sources, out, log, strips) if watch else write_report(sources, out, strips)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print(printable(f"{out}: {size / 1e6:.1f} MB"))
