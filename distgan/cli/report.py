"""`distgan report`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from distgan.cli.options import TrustAddresses, TrustCode
from distgan.text import printable


def report(
    sources: Annotated[
        list[str], typer.Argument(metavar="RUN|SEARCH...", help="Folders or URLs of runs, or of one search.")
    ],
    out: Annotated[str, typer.Option(metavar="FILE", help="The page. An existing file is replaced.")] = "report.html",
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Add images between latents, by the best checkpoint.")
    ] = False,
    memorization: Annotated[
        bool,
        typer.Option(
            "--memorization",
            help="Add the training images nearest to samples of the best checkpoint. Reads the whole data set.",
        ),
    ] = False,
    trust_code: TrustCode = False,
    trust_addresses: TrustAddresses = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page anew every 30 seconds until nothing trains there.")
    ] = False,
) -> None:
    """Write a page on a run, on several side by side, or on a search: samples, curves, health, configuration.

    One HTML file to open in a browser, to keep and to send: it needs no network.

    Example: `distgan report runs/first runs/second --out report.html`
    """
    from distgan.report.page import Extras, watch_report, write_report

    if memorization and watch:
        raise typer.BadParameter("reads the whole data set each time; leave out --watch", param_hint="--memorization")

    def log(line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

    extras = Extras(interpolate, memorization, trust_code, trust_addresses)
    try:
        size = watch_report(sources, out, log, extras) if watch else write_report(sources, out, extras)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print(printable(f"{out}: {size / 1e6:.1f} MB"))
