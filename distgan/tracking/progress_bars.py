"""Progress bars outside of runs: features, samples, packing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.evaluation.image_source import OnProgress, Stage

Log = Callable[[str], None]

_LINE_S = 10.0


def progress_bar(console: Console | None = None) -> Progress:
    """A bar on standard error, where that is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = console or Terminal(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def feature_bars(
    totals: Mapping[Stage, int], *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[tuple[OnProgress, Log]]:
    """A bar on the terminal's standard error for each stage that has begun, and a function that prints a line there.

    Where standard error is no terminal, a line every ten seconds says how far the stage is. Under torchrun only rank 0
    prints.
    """
    console = Terminal(stderr=True, soft_wrap=True, quiet=quiet or os.environ.get("RANK", "0") != "0")
    with progress_bar(console) as progress:
        tasks = {stage: progress.add_task(stage, total=total, visible=False) for stage, total in totals.items()}

        done = dict.fromkeys(totals, 0)
        last = clock()

        def on_progress(stage: Stage, images: int) -> None:
            nonlocal last
            progress.update(tasks[stage], advance=images, visible=True)
            done[stage] += images
            if not console.is_terminal and clock() - last >= _LINE_S:
                last = clock()
                log(f"{stage}: {done[stage]:,} of {totals[stage]:,}")

        def log(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False)

        yield on_progress, log
