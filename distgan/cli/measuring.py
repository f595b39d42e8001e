"""What the commands that measure images have in common: a bar, and workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distgan.cli.data_output import progress_bar
from distgan.tracking.console import Terminal

if TYPE_CHECKING:
    from distgan.evaluation.image_source import OnProgress, Stage


Say = Callable[[str], None]


@contextmanager
def measuring_bars(totals: Mapping[Stage, int]) -> Iterator[tuple[OnProgress, Say]]:
    """A bar on a terminal's standard error for each stage that has begun, and what prints a line there.

    Of the processes of torchrun only the first has them.
    """
    console = Terminal(stderr=True, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")
    with progress_bar(console) as progress:
        tasks = {stage: progress.add_task(stage, total=total, visible=False) for stage, total in totals.items()}

        def told(stage: Stage, images: int) -> None:
            progress.update(tasks[stage], advance=images, visible=True)

        def say(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False)

        yield told, say
