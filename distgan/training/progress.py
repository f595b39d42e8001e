"""How far a run is: counters, and what early stopping knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict

from distgan.config.schema import Config, EvaluationConfig


@dataclass
class Progress:
    """Plain numbers that, with the seed, fix all that comes.

    Attributes:
        step: generator updates done.
        batches: real batches taken from the data, the position in its order.
        images: real images that the critic consumed; kimg are thousands of these.
        bad_samples: different samples so far in whose place another was taken.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: int = 0
    critic_updates: int = 0
    batches: int = 0
    images: int = 0
    untrained: float | None = None
    latest: float | None = None
    best: float | None = None
    best_images: int = 0
    best_checkpoint: str | None = None
    without_improvement: int = 0
    bad_samples: int = 0

    @property
    def kimg(self) -> float:
        return self.images / 1000

    def advance(self, config: Config) -> int:
        """Counts one step; returns the real images that it consumed."""
        objective = config.objective
        images = objective.critic_steps * config.training.batch_size
        self.step += 1
        self.critic_updates += objective.critic_steps
        self.batches += objective.critic_steps if objective.critic_batches == "fresh" else 1
        self.images += images
        return images

    def judge(self, distance: float, config: EvaluationConfig, checkpoint: str) -> bool:
        """Takes an evaluation's distance into account; whether it is an improvement.

        The best is the smallest distance seen; patience is restored only by one that is smaller by at least
        `min_improvement` of the best.
        """
        self.latest = distance
        if self.step == 0:
            self.untrained = distance
        improved = self.best is None or distance < self.best * (1 - config.min_improvement)
        self.without_improvement = 0 if improved else self.without_improvement + 1
        if self.best is None or distance < self.best:
            self.best, self.best_images, self.best_checkpoint = distance, self.images, checkpoint
        return improved

    def plateaued(self, config: EvaluationConfig) -> bool:
        """Whether patience is at its end."""
        return config.patience is not None and self.without_improvement >= config.patience

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def due(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in (before, after], both counted in images."""
    every = max(1, round(every_kimg * 1000))
    return after // every > before // every
