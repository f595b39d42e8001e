"""Progress bars outside of runs: features, samples, packing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.evaluation.image_source import OnProgress, Stage

Log = Callable[[str], None]


def progress_bar(console: Console | None = None) -> Progress:
    """A bar on standard error, where that is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = console or Terminal(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def feature_bars(totals: Mapping[Stage, int], *, quiet: bool = False) -> Iterator[tuple[OnProgress, Log]]:
    """A bar on the terminal's standard error for each stage that has begun, and a function that prints a line there.

    Under torchrun only rank 0 prints.
    """
    console = Terminal(stderr=True, soft_wrap=True, quiet=quiet or os.environ.get("RANK", "0") != "0")
    with progress_bar(console) as progress:
        tasks = {stage: progress.add_task(stage, total=total, visible=False) for stage, total in totals.items()}

        def on_progress(stage: Stage, images: int) -> None:
            progress.update(tasks[stage], advance=images, visible=True)

        def log(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False)

        yield on_progress, log
