"""How far a run is: counters, and the evaluations that early stopping judges."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from distgan.config.schema import Config
from distgan.training.health import Count, Health

# Far more than can be trained, and few enough for a place in the data to be a number of 64 bits.
Updates = Annotated[int, Field(ge=0, le=2**40)]

Images = Count


@dataclass(frozen=True)
class Evaluation:
    """A Fréchet distance and other measures, and after how many generator updates and real images they were taken."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Updates
    images: Images
    distance: float
    more: dict[str, float] = field(default_factory=dict)

    def value(self, measure: str) -> float | None:
        """What it found for a measure, as the configuration calls it; None where it was not taken."""
        return self.distance if measure == "frechet" else self.more.get(measure)


@dataclass(frozen=True)
class Pending:
    """An evaluation that is under way: of the checkpoint of this step."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Updates
    images: Images


@dataclass
class Progress:
    """Plain numbers that, with the seed, fix all that comes.

    Attributes:
        step: generator updates done.
        batches: real batches taken from the data, the position in its order.
        images: real images of all discriminator updates; kimg are thousands of these. Those that an objective reads
            for generator updates count in `batches` only: no network is trained on them.
        bad_samples: different samples so far in whose place another was taken.
        evaluations: all of the run, in their order; one at step 0 is of the generator that the run began with.
        pending: one whose result is not among them yet.
        given: whether the generator that the run began with had the weights of another run.
        health: whether it is healthy, and what that is judged by.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Updates = 0
    critic_updates: Updates = 0
    batches: Updates = 0
    images: Images = 0
    bad_samples: Images = 0
    evaluations: list[Evaluation] = field(default_factory=list)
    pending: Pending | None = None
    given: bool = False
    health: Health = field(default_factory=Health)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """The inverse of `as_dict`. Raises pydantic's ValidationError for what is none."""
        return TypeAdapter(cls).validate_python(values)

    @property
    def kimg(self) -> float:
        return self.images / 1000

    def advance(self, config: Config, batches: int) -> int:
        """Counts one step that read `batches` real batches; returns the images of its discriminator updates."""
        objective = config.objective
        images = objective.critic_steps * config.training.batch_size
        self.step += 1
        self.critic_updates += objective.critic_steps
        self.batches += batches
        self.images += images
        return images

    def evaluated(self, distance: float, more: dict[str, float] | None = None) -> None:
        """Takes down the evaluation that was pending, else one of this moment."""
        of = self.pending or Pending(self.step, self.images)
        self.evaluations.append(Evaluation(of.step, of.images, distance, more or {}))
        self.pending = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def due(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in (before, after], both counted in images."""
    every = max(1, round(every_kimg * 1000))
    return after // every > before // every
