"""What a launch gives back."""

from __future__ import annotations

from dataclasses import dataclass

from distgan.training.events import Summary


@dataclass(frozen=True)
class Outcome:
    """A run's summary, on the process that has it, and the exit code for the command line."""

    summary: Summary | None
    exit_code: int
