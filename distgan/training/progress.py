"""How far a run is: counters, and the evaluations that early stopping judges."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from distgan.config.schema import Config, EvaluationConfig
from distgan.training.events import Verdict
from distgan.training.health import Health


@dataclass(frozen=True)
class Evaluation:
    """A Fréchet distance, and after how many generator updates and real images it was measured."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: int
    images: int
    distance: float

    @property
    def kimg(self) -> float:
        return self.images / 1000


@dataclass
class Progress:
    """Plain numbers that, with the seed, fix all that comes.

    What is best and whether the distance stays is said of the evaluations anew each time, so that a session with
    another `evaluation.patience` or `min_improvement` judges all of them by its own.

    Attributes:
        step: generator updates done.
        batches: real batches taken from the data, the position in its order.
        images: real images that the critic consumed; kimg are thousands of these.
        bad_samples: different samples so far in whose place another was taken.
        evaluations: all of the run, in their order; one at step 0 is of the generator that the run began with.
        health: whether it is healthy, and what that is judged by.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: int = 0
    critic_updates: int = 0
    batches: int = 0
    images: int = 0
    bad_samples: int = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    health: Health = field(default_factory=Health)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """The inverse of `as_dict`. Raises pydantic's ValidationError for what is none."""
        return TypeAdapter(cls).validate_python(values)

    @property
    def kimg(self) -> float:
        return self.images / 1000

    @property
    def untrained(self) -> float | None:
        """The distance of the generator that the run began with, where it was measured."""
        return next((evaluation.distance for evaluation in self.evaluations if evaluation.step == 0), None)

    @property
    def trained(self) -> list[Evaluation]:
        """The evaluations of what the run has trained: the others compete for nothing."""
        return [evaluation for evaluation in self.evaluations if evaluation.step > 0]

    @property
    def latest(self) -> Evaluation | None:
        """The last of the trained ones."""
        return next(reversed(self.trained), None)

    @property
    def best(self) -> Evaluation | None:
        """The trained one of the smallest distance, of equal ones the first."""
        return min(self.trained, key=lambda evaluation: evaluation.distance, default=None)

    def advance(self, config: Config) -> int:
        """Counts one step; returns the real images that it consumed."""
        objective = config.objective
        images = objective.critic_steps * config.training.batch_size
        self.step += 1
        self.critic_updates += objective.critic_steps
        self.batches += objective.critic_steps if objective.critic_batches == "fresh" else 1
        self.images += images
        return images

    def evaluated(self, distance: float) -> None:
        """Takes down an evaluation of this moment."""
        self.evaluations.append(Evaluation(self.step, self.images, distance))

    def without_improvement(self, config: EvaluationConfig) -> int:
        """How many trained evaluations in a row, up to the last, brought no improvement.

        An improvement is the first of them, and one below the best before it by more than `min_improvement` of it.
        None is asked for before `warm_up_kimg`.
        """
        best, count = math.inf, 0
        for evaluation in self.trained:
            improved = evaluation.distance < best * (1 - config.min_improvement)
            count = 0 if improved or evaluation.kimg < config.warm_up_kimg else count + 1
            best = min(best, evaluation.distance)
        return count

    def verdict(self, config: EvaluationConfig) -> Verdict | None:
        """Why early stopping ends the run, where it does: the target is reached, or patience is at its end."""
        if config.target is not None and self.best is not None and self.best.distance <= config.target:
            return "target"
        if config.patience is not None and self.without_improvement(config) >= config.patience:
            return "plateau"
        return None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def due(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in (before, after], both counted in images."""
    every = max(1, round(every_kimg * 1000))
    return after // every > before // every
