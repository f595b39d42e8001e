"""The progress bars of commands that compute features."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distgan.cli.data_output import progress_bar
from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.evaluation.image_source import OnProgress, Stage


Log = Callable[[str], None]


@contextmanager
def feature_bars(totals: Mapping[Stage, int]) -> Iterator[tuple[OnProgress, Log]]:
    """A bar on the terminal's standard error for each stage that has begun, and a function that prints a line there.

    Under torchrun only rank 0 prints.
    """
    console = Terminal(stderr=True, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")
    with progress_bar(console) as progress:
        tasks = {stage: progress.add_task(stage, total=total, visible=False) for stage, total in totals.items()}

        def on_progress(stage: Stage, images: int) -> None:
            progress.update(tasks[stage], advance=images, visible=True)

        def log(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False)

        yield on_progress, log
