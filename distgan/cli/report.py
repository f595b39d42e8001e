"""`distgan report`."""

from __future__ import annotations

from typing import Annotated

import typer

from distgan.text import printable


def report(
    sources: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders or URLs of runs.")],
    out: Annotated[str, typer.Option(metavar="FILE", help="The page. An existing file is replaced.")] = "report.html",
) -> None:
    """Write a page on a run, or on several side by side: samples, curves, health and configuration.

    One HTML file to open in a browser, to keep and to send: it needs no network.

    Example: `distgan report runs/first runs/second --out report.html`
    """
    from distgan.report.page import write_report

    size = write_report(sources, out)
    print(printable(f"{out}: {size / 1e6:.1f} MB"))
