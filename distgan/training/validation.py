"""Evaluations aside: checkpoints measured on other processors while training goes on."""

from __future__ import annotations

from typing import Protocol

from distgan.evaluation.evaluator import Scores


class Validation(Protocol):
    """Whoever measures checkpoints aside. Both methods are called on every rank together."""

    def begin(self, checkpoint: str) -> None:
        """Starts measuring a whole checkpoint of the run, by its name; returns at once."""
        ...

    def result(self, checkpoint: str) -> Scores:
        """What was begun has found, the same on every rank; waits for it. Raises UserError where it failed."""
        ...
