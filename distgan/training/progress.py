"""The counters of a run, and its evaluations."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from distgan.config.schema import Config
from distgan.evaluation.evaluator import Scores
from distgan.training.adaptive_augmentation import AdaptiveProbability
from distgan.training.health import Health, NonNegative

# Far more than can be trained, and few enough for a position in the data to be a number of 64 bits.
Updates = Annotated[int, Field(ge=0, le=2**40)]

Images = NonNegative

_LATER = ("gap", "augmentation")


@dataclass(frozen=True)
class StepScores:
    """The scores that a run keeps of its averaged generator, after so many generator updates and real images.

    Attributes:
        distance: the Fréchet distance.
        more: further metrics by the names that the configuration has.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Updates
    images: Images
    distance: float
    more: dict[str, float] = field(default_factory=dict)

    @property
    def kimg(self) -> float:
        return self.images / 1000

    @property
    def values(self) -> dict[str, float]:
        """All metrics by the names that the configuration has."""
        return {"frechet": self.distance} | self.more

    def value(self, metric: str) -> float | None:
        """The value of a metric; None where it was not computed."""
        return self.values.get(metric)


@dataclass(frozen=True)
class Pending:
    """An asynchronous evaluation that is not finished: that of this step's checkpoint."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Updates
    images: Images


@dataclass
class Progress:
    """Plain numbers that, with the seed, determine everything that follows.

    Attributes:
        step: generator updates.
        discriminator_updates: discriminator updates.
        batches: real batches taken from the data, the position in its order.
        images: real images of all discriminator updates; a kimg is a thousand of these. Those that an objective reads
            for generator updates count in `batches` only.
        bad_samples: distinct bad samples that were replaced by others.
        evaluations: all of the run, oldest first; step 0 is the generator that the run began with.
        pending: the evaluation whose scores are still to come.
        given: whether the run began with weights of another run.
        health: state of the failure detectors.
        gap: the discriminator's between training and held-out images, when it was last measured.
        augmentation: its adapted probability; None where it is not adapted.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Updates = 0
    discriminator_updates: Updates = 0
    batches: Updates = 0
    images: Images = 0
    bad_samples: Images = 0
    evaluations: list[StepScores] = field(default_factory=list)
    pending: Pending | None = None
    given: bool = False
    health: Health = field(default_factory=Health)
    gap: Annotated[float, Field(ge=0, le=1)] | None = None
    augmentation: AdaptiveProbability | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """The inverse of `as_dict`. Raises pydantic's ValidationError for invalid values."""
        return TypeAdapter(cls).validate_python(values)

    @property
    def kimg(self) -> float:
        return self.images / 1000

    def advance(self, config: Config, batches: int) -> int:
        """Counts one step that read `batches` real batches; returns the images of its discriminator updates."""
        objective = config.objective
        images = objective.critic_steps * config.training.batch_size
        self.step += 1
        self.discriminator_updates += objective.critic_steps
        self.batches += batches
        self.images += images
        return images

    def add_scores(self, scores: Scores) -> StepScores:
        """Records the scores of the pending evaluation; without one, those of the current generator."""
        of = self.pending or Pending(self.step, self.images)
        evaluation = StepScores(of.step, of.images, scores.distance, scores.more)
        self.evaluations.append(evaluation)
        self.pending = None
        return evaluation

    def as_dict(self) -> dict[str, Any]:
        """All fields; without those that are not in use and that earlier versions do not know."""
        values = asdict(self)
        return {key: value for key, value in values.items() if value is not None or key not in _LATER}


def due(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in (before, after], both in images."""
    every = max(1, round(every_kimg * 1000))
    return after // every > before // every
