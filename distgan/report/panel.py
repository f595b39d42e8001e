"""The live picture of a run in a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distgan.report import words
from distgan.report.pace import Pace
from distgan.training.events import Evaluated, Started, StopReason, Trained


@dataclass
class View:
    """What is known of a run: its start, its latest events, its speed, why it ended."""

    started: Started
    kimg: float
    pace: Pace
    trained: Trained | None = None
    evaluated: Evaluated | None = None
    ended: StopReason | None = None


def render(view: View, now: float) -> RenderableType:
    """Header, progress bar and latest numbers; `now` in seconds."""
    return Group(_header(view.started), _bar(view, now), _numbers(view))


def _header(started: Started) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for label, value in (
        ("run", Text(started.name, "bold")),
        ("workers", Text(words.setting(started))),
        ("networks", Text(words.networks(started))),
        ("data", Text(words.data(started), overflow="fold")),
    ):
        table.add_row(Text(label, "dim"), value)
    return table


def _bar(view: View, now: float) -> RenderableType:
    budget = view.started.budget_kimg
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row(
        ProgressBar(total=budget, completed=view.kimg, finished_style="bar.complete"),
        Text(f"{words.progress(view.kimg, budget)}  {view.kimg / budget:.0%}"),
        Text(_time_left(view, now), "cyan"),
    )
    return table


def _time_left(view: View, now: float) -> str:
    if view.ended is not None:
        return f"ended ({view.ended})"
    left = view.pace.seconds_left(now)
    return "time left unknown" if left is None else f"{words.duration(left)} left"


def _numbers(view: View) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    if view.trained is not None:
        table.add_row(Text("speed", "dim"), Text(f"{words.number(view.trained.images_per_second)} images/s"))
        table.add_row(Text("losses", "dim"), _losses(view.trained))
    event = view.evaluated
    if event is not None:
        table.add_row(Text(event.metric, "dim"), _distance(event))
    return table


def _losses(event: Trained) -> Text:
    parts = (f"{name} {words.number(value)}" for name, value in words.losses(event).items())
    return Text("   ".join(parts))


def _distance(event: Evaluated) -> Text:
    better = event.improved and not words.worse_than_start(event)
    now = Text(words.number(event.value), "bold green" if better else "bold")
    parts = [words.best(event)] if event.best is None else [words.best(event), words.waiting(event)]
    return now + Text("".join(f"   {part}" for part in parts))
