"""Ends a run whose numbers are not finite, on every rank, before they are saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

from distgan.config.schedule import value_at
from distgan.distributed import Distributed
from distgan.errors import DivergedError
from distgan.training.checkpoints import FOLDER, CheckpointStore
from distgan.training.progress import Progress
from distgan.training.run_spec import RunSpec
from distgan.training.state import TrainingState


class DivergenceGuard:
    """Checks the losses of every step, and the state before it is evaluated or saved."""

    def __init__(self, spec: RunSpec, distributed: Distributed, checkpoints: CheckpointStore) -> None:
        self._spec, self._distributed, self._checkpoints = spec, distributed, checkpoints
        self._last: dict[str, float] = {}

    def check_losses(self, terms: Sequence[dict[str, float]], progress: Progress) -> None:
        """Raises DivergedError for the first step whose terms are not finite.

        `terms` are those of the steps up to `progress.step`, the same on every rank.
        """
        for step, values in enumerate(terms, progress.step - len(terms) + 1):
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                self._end(progress, step, " and ".join(f"{name} is {values[name]}" for name in bad))
            self._last = values

    def check_state(self, state: TrainingState) -> None:
        """Raises DivergedError if weights, their average or moments are not finite. Collective."""
        part = self._distributed.broadcast(state.first_non_finite() if self._distributed.rank == 0 else None)
        if part is not None:
            self._end(state.progress, state.progress.step, f"the numbers of {part} are not all finite")

    def _end(self, progress: Progress, step: int, problem: str) -> NoReturn:
        config = self._spec.config
        images = progress.images - (progress.step - step) * config.objective.critic_steps * config.training.batch_size
        losses = ", ".join(f"{name}={value:.4g}" for name, value in self._last.items() if name.startswith("loss/"))
        optimizer = config.optimizer
        lr_g, lr_d = (
            value_at(rate, progress.kimg) * value_at(optimizer.lr_factor, progress.kimg)
            for rate in (optimizer.generator.lr, optimizer.discriminator.lr)
        )
        before = f"the last finite losses were {losses}" if losses else "it was the first step of this session"
        kept = self._newest_checkpoint()
        raise DivergedError(
            f"{self._spec.run.url}: training diverged at step {step} ({images / 1000:g} kimg): {problem}; "
            f"{before}; {f'the last checkpoint, {FOLDER}/{kept}, is kept' if kept else 'there is no checkpoint yet'}. "
            f"The same command would most likely diverge again: start a new run with another --name and a lower "
            f"optimizer.generator.lr (now {lr_g:g}) or "
            f"optimizer.discriminator.lr (now {lr_d:g})"
        )

    def _newest_checkpoint(self) -> str | None:
        """The newest complete checkpoint, after the write in progress."""
        if self._distributed.rank == 0:
            self._checkpoints.join()
        return self._distributed.from_rank_0(self._checkpoints.newest_name)
