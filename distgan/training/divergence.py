"""Ends a run whose numbers are no longer finite, on every rank alike, before anything of it is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

from distgan.distributed import Distributed
from distgan.errors import DivergedError
from distgan.training.checkpoints import FOLDER, CheckpointStore
from distgan.training.progress import Progress
from distgan.training.run_spec import RunSpec
from distgan.training.state import TrainingState


class DivergenceGuard:
    """Looks at the losses of every update, and at the state before it is evaluated or saved."""

    def __init__(self, job: RunSpec, distributed: Distributed, checkpoints: CheckpointStore) -> None:
        self._job, self._world, self._checkpoints = job, distributed, checkpoints
        self._last: dict[str, float] = {}

    def check_losses(self, terms: Sequence[dict[str, float]], progress: Progress) -> None:
        """Raises UserError for the first update whose terms are not finite.

        `terms` are those of the updates up to `progress.step`, the same on every rank.
        """
        for update, values in enumerate(terms, progress.step - len(terms) + 1):
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                self._end(progress, update, " and ".join(f"{name} is {values[name]}" for name in bad))
            self._last = values

    def check_state(self, state: TrainingState) -> None:
        """Raises UserError where weights, their average or moments are not finite; all ranks together."""
        part = self._world.broadcast(state.not_finite() if self._world.rank == 0 else None)
        if part is not None:
            self._end(state.progress, state.progress.step, f"the numbers of {part} are not all finite")

    def _end(self, progress: Progress, update: int, what: str) -> NoReturn:
        config = self._job.config
        images = progress.images - (progress.step - update) * config.objective.critic_steps * config.training.batch_size
        losses = ", ".join(f"{name}={value:.4g}" for name, value in self._last.items() if name.startswith("loss/"))
        before = f"the last finite losses were {losses}" if losses else "this session had no update before it"
        kept = self._kept_checkpoint()
        raise DivergedError(
            f"{self._job.run.url}: training diverged at update {update} ({images / 1000:g} kimg): {what}; {before}; "
            f"{f'the last checkpoint, {FOLDER}/{kept}, is kept' if kept else 'there is no checkpoint yet'}. "
            f"The same command would most likely end so again: start a new run with another --name and a lower "
            f"optimizer.generator.lr (now {config.optimizer.generator.lr:g}) or "
            f"optimizer.discriminator.lr (now {config.optimizer.discriminator.lr:g})"
        )

    def _kept_checkpoint(self) -> str | None:
        """The newest whole checkpoint, once the one under way is written."""
        if self._world.rank == 0:
            self._checkpoints.settle()
        return self._world.from_rank_0(self._checkpoints.newest_name)
