"""A search by a command that can be started again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.runs import BATCH, KEYS, Run
from distgan.search.record import require_record

_TRIALS = 2


@dataclass
class Search(Run):
    """A search of two trials of `steps` steps, both at a time, a worker each."""

    @property
    def arguments(self) -> list[str]:
        kimg = self.steps * BATCH / 1000
        keys = [f"data.url={self.place.data}", f"training.kimg={kimg}", f"evaluation.every_kimg={kimg / 2}"]
        space = ["--space", "optimizer.generator.lr=choice(2e-4, 4e-4)", "--search", "grid", "--scheduler", "none"]
        where = ["--name", self.name, "--storage", self.storage, "--concurrent", str(_TRIALS), *self.place.options]
        return ["tune", "quickstart", *KEYS, *keys, *space, *where]

    @property
    def parts(self) -> list[Run]:
        names = [f"{number:04d}" for number in range(_TRIALS)]
        storage = f"{self.url}/trials"
        return [Run(name, self.place, storage, self.steps, self.workers, self.deadline) for name in names]

    def trials(self) -> list[dict[str, Any]]:
        """The trials of its record, without times."""
        return [trial.model_dump(exclude={"seconds", "start_seconds"}) for trial in require_record(self.url).trials]
