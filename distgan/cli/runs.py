"""`distgan runs`: the runs in a folder or bucket, one of them, and a copy of what one looks at."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from distgan.text import command, plural, printable, without_credentials
from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.report.run_data import RunData
    from distgan.report.run_list import RunRow

app = typer.Typer(help="List runs in a folder or bucket, show one, copy its pictures here.", no_args_is_help=True)

RunUrl = Annotated[str, typer.Argument(metavar="RUN", help="Folder or URL of a run.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_runs(
    url: Annotated[str, typer.Argument(metavar="URL", help="Folder or URL of runs, as --storage names it.")] = "runs",
    as_json: AsJson = False,
) -> None:
    """List the runs and searches in a folder or bucket: state, kimg, best value, time since the last change.

    Example: `distgan runs list s3://bucket/runs`
    """
    from distgan.report import run_list

    rows, left = run_list.list_runs(url)
    if as_json:
        print(json.dumps([row.as_dict() for row in rows], indent=1))
        return
    if not rows:
        print(printable(f"{without_credentials(url)}: no runs there"))
        return
    console = Terminal()
    console.print(_table(rows))
    for row in rows:
        if row.error:
            console.print(Text(f"{row.name}: {without_credentials(row.error)}", "red"), soft_wrap=True)
    if left:
        console.print(f"{left:,} further names are not read: name a folder with fewer")


@app.command()
def show(url: RunUrl, as_json: AsJson = False) -> None:
    """Show a run: state, progress, metrics, health, attempts, and where its files are.

    Example: `distgan runs show s3://bucket/runs/first`
    """
    from distgan.report.run_data import NothingYetError, read_run
    from distgan.report.run_files import RunFiles
    from distgan.report.run_list import require_run

    row, folder = require_run(url)
    files = RunFiles.of(folder)
    if as_json:
        print(json.dumps(row.as_dict() | {"files": asdict(files)}, indent=1))
        return
    try:
        run = read_run(url)
    except NothingYetError:
        run = None
    console = Terminal()
    table = Table(title=Text(row.name, "bold"), title_justify="left", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for rows in (_overview(row) if run is None else run.overview(), [] if run is None else _events(run), files.rows()):
        for label, value in rows:
            table.add_row(Text(label), Text(without_credentials(value)))
        if rows:
            table.add_section()
    console.print(table)
    look = command("runs", "fetch", url) if not folder.is_local else command("report", url)
    console.print(Text(f"to look at it: {look}"), soft_wrap=True)


@app.command()
def fetch(
    url: Annotated[str, typer.Argument(metavar="RUN|SEARCH", help="Folder or URL of a run or search.")],
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where to copy to. By default a folder of the run's name.")
    ] = None,
) -> None:
    """Copy a run's newest sample grid, curves, metrics and configuration here; `distgan report` reads the copy.

    Of a search: its record, leaderboard, best configuration and pictures. Checkpoints are not copied.

    Example: `distgan runs fetch s3://bucket/runs/first`
    """
    from distgan.report.run_files import fetch_run

    folder, names = fetch_run(url, out)
    print(printable(f"{folder}: {', '.join(names)}"))


def _table(rows: list[RunRow]) -> Table:
    from distgan.report.run_list import shown_best, shown_kimg

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold", min_width=8)
    table.add_column("state", overflow="fold", min_width=11)
    table.add_column("kimg", justify="right", no_wrap=True)
    table.add_column("best, at kimg", justify="right", no_wrap=True)
    table.add_column("metric", overflow="ellipsis", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    for row in rows:
        name = f"{row.name} (search)" if row.kind == "search" else row.name
        cells = (name, row.shown_state, shown_kimg(row), shown_best(row), row.metric, row.age)
        table.add_row(*map(Text, cells), style={"failed": "red", "running": "cyan"}.get(row.state, ""))
    return table


def _overview(row: RunRow) -> list[tuple[str, str]]:
    """The rows on a run without a logged step."""
    state = f"{row.shown_state}: {row.error}" if row.error else row.shown_state
    return [("state", state), ("trained", "no step is logged yet")]


def _events(run: RunData) -> list[tuple[str, str]]:
    from distgan.tracking.formatting import health_warning, kimg_count

    rows = [("health", health_warning(warning)) for warning in run.health]
    if run.restarted:
        rows += [
            (
                f"attempt {place}",
                f"{plural(each.workers, 'worker')} from {kimg_count(each.kimg)} kimg: {each.failure or 'no fault'}",
            )
            for place, each in enumerate(run.attempts, 1)
        ]
    return rows
