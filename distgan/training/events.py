"""What a run tells the outside, and whom it tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from distgan.training.health import FailureMode, HealthWarning

if TYPE_CHECKING:
    from torch import Tensor


# What early stopping decides, and whatever else ends a run.
Verdict = Literal["plateau", "target"] | FailureMode

StopReason = Literal["budget", "time", "interrupted"] | Verdict


@dataclass(frozen=True)
class RunStarted:
    """A session of a run begins, new or resumed; `step` and `kimg` say where; `configuration` is a YAML file's text.

    `crowding_load` is the load of the machine where so much else is running that fewer threads may be faster.
    """

    name: str
    resumed: bool
    step: int
    kimg: float
    budget_kimg: float
    workers: int
    groups: int
    threads: int
    device: str
    batch_size: int
    generator_parameters: int
    discriminator_parameters: int
    data_url: str
    data_samples: int
    metric: str
    configuration: str
    crowding_load: float | None = None


@dataclass(frozen=True)
class SmallDatasetWarning:
    """The data are too few for something; what they are enough for is None.

    Attributes:
        samples: images of the data set.
        compared: how many of them the distance is taken of.
        features: numbers that the extractor makes of an image; with as many images or fewer on a side, its covariance
            lacks rank.
        real_samples: what `evaluation.real_samples` asks for.
        batch_size: of which the data do not fill `batches`.
        generated: images of an evaluation, where they are not more than the features.
    """

    samples: int
    compared: int
    features: int | None
    real_samples: int | None
    batch_size: int | None
    batches: int
    generated: int | None = None


@dataclass(frozen=True)
class StepMetrics:
    """Means over the last `training.log_every` steps; `terms` are losses and the like by name."""

    step: int
    kimg: float
    images_per_second: float
    terms: dict[str, float]


@dataclass(frozen=True)
class EvaluationResult:
    """The average generator of `step` was measured.

    Attributes:
        metric: the monitored measure's name, by default that of the Fréchet distance, with the number of samples.
        value: what it was; at step 0 it is of the generator that the run began with, which is not yet a best one.
        improved: whether it counts as an improvement.
        reported_step: when the run got to know it, later than `step` where it was measured aside.
        more: the other measures by their names.
        seconds_of: the parts of the time.
        higher_is_better: of the value.
        diversity: how far the samples lie apart (`metrics.diversity`).
        untrained: value of the generator that the run began with, where it was measured.
        given: whether that one had the weights of another run.
    """

    step: int
    kimg: float
    metric: str
    value: float
    best: float | None
    best_kimg: float | None
    improved: bool
    without_improvement: int
    patience: int | None
    seconds: float
    reported_step: int = 0
    more: dict[str, float] = field(default_factory=dict)
    seconds_of: dict[str, float] = field(default_factory=dict)
    higher_is_better: bool = False
    diversity: float | None = None
    untrained: float | None = None
    given: bool = False


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint of record is whole in the run's storage under `checkpoints/<name>`."""

    step: int
    kimg: float
    name: str


@dataclass(frozen=True)
class Summary:
    """How a run ended. Values of the monitored measure are None where it was not measured.

    Attributes:
        metric: the monitored measure's name.
        budget_kimg: how far the run was to go.
        untrained: value of the generator that the run began with; `given` where it had the weights of another run.
        best, latest: values of what the run has trained; the latest need not be of the end.
        floor: Fréchet distance that `floor_images` of the real images measure, as many as an evaluation generates (half
            of the real ones, where there are few): no generator is expected to beat it. None where another measure is
            monitored.
        reason: why it stopped.
        without_improvement: evaluations in a row, up to the last one, that brought nothing better.
        best_checkpoint: name of the best that is kept: where another measure was monitored before, perhaps a worse one
            than `best`.
        seconds: wall-clock seconds of this session by phase (`total`, `start`, `training`, `evaluation`, …).
        run_seconds: of all sessions of the run, each up to the checkpoint that the next went on from; None where an
            earlier version's checkpoint does not say.
        bad_samples: different samples that were passed over; None where they are not to be.
        health: the states of ill health that the run has been in, oldest first.
    """

    name: str
    metric: str
    reason: StopReason
    kimg: float
    budget_kimg: float
    steps: int
    untrained: float | None
    best: float | None
    best_kimg: float | None
    latest: float | None
    latest_kimg: float | None
    floor: float | None
    without_improvement: int
    best_checkpoint: str | None
    last_checkpoint: str | None
    workers: int
    resumed_at_kimg: float
    images_per_second: float
    seconds: dict[str, float] = field(default_factory=dict)
    bad_samples: int | None = None
    distgan: str = ""
    health: list[HealthWarning] = field(default_factory=list)
    given: bool = False
    higher_is_better: bool = False
    floor_images: int | None = None
    run_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RunFinished:
    """The run's session ended in order."""

    summary: Summary


@dataclass(frozen=True)
class ProfileWritten:
    """Where the time of a step went, on rank 0.

    Attributes:
        steps: how many were recorded; 0 where the session was too short.
        milliseconds: means over them: the whole `step`, its parts, which add up to it, and `all-reduce`, which runs
            beside them. What comes between steps (evaluations, checkpoints) is in the summary's `seconds`.
        folder: URL of the folder with the trace.
    """

    steps: int
    milliseconds: dict[str, float]
    folder: str


@dataclass(frozen=True)
class Notice:
    """Something went wrong that does not end the run: a damaged checkpoint, storage that is away. May come first."""

    text: str


Event = (
    RunStarted
    | SmallDatasetWarning
    | StepMetrics
    | EvaluationResult
    | HealthWarning
    | CheckpointSaved
    | ProfileWritten
    | RunFinished
    | Notice
)


class Reporter(Protocol):
    """Where the loop sends what it does: rank 0 alone, but for `evaluated`."""

    def event(self, event: Event) -> None:
        """Takes an event; must not block training."""
        ...

    def samples(self, step: int, kimg: float, images: Tensor, columns: int | None = None) -> None:
        """Takes images at fixed latents, uint8 (N, C, H, W) on the CPU, for a grid of so many columns."""
        ...

    def stop_requested(self) -> bool:
        """Whether somebody wants the run to save its state and end now."""
        ...

    def evaluated(self, event: EvaluationResult) -> None:
        """Called on *every* rank after an evaluation, where launchers meet their workers."""
        ...
