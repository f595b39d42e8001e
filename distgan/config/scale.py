"""The configuration's section `scale`."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field

from distgan.config.section import Runtime, Section


class ScaleConfig(Section):
    workers: Annotated[int, Ge(1), Le(4096), Runtime()] = Field(
        1, description="DDP workers, which share a batch; at most scale.groups"
    )
    min_workers: Annotated[int | None, Ge(1), Le(4096), Runtime()] = Field(
        None,
        description="on Ray, elastic: as many workers as there is room for, from this number to scale.workers; "
        "null: always scale.workers",
    )
    resize_seconds: Annotated[float, Ge(1), Le(86_400), Runtime()] = Field(
        60.0, description="elastic: how often a run looks for room for more workers"
    )
    replacement_seconds: Annotated[float, Ge(1), Le(86_400), Runtime()] = Field(
        15.0, description="elastic: how long lost workers are waited for before fewer go on"
    )
    groups: Annotated[int, Ge(1), Le(4096)] = Field(
        4, description="equal parts of a batch, each with its own batch statistics and random numbers"
    )
    threads: Annotated[int | None, Ge(1), Le(1024), Runtime()] = Field(
        None,
        description="torch threads a worker; by default OMP_NUM_THREADS, else processors of the host (on Ray: "
        "of the node) / local workers",
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], Runtime()] = Field(
        "auto", description="auto: GPUs if there is one for each worker"
    )
    max_failures: Annotated[int, Ge(0), Runtime()] = Field(
        3, description="restarts after lost workers without a new checkpoint in between"
    )
    hang_minutes: Annotated[float, Gt(0), Le(1e6), Runtime()] = Field(
        5.0,
        description="on Ray: workers that make no progress in their steps for so long are restarted; waits for "
        "storage do not count",
    )

    @property
    def fewest(self) -> int:
        """Workers without which a run waits."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def range_text(self) -> str:
        """`2 workers`, `1 to 8 workers`."""
        if self.min_workers is None:
            return f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        return f"{self.min_workers} to {self.workers} workers"
