"""The events of a run, and the protocol of their receiver."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from distgan.training.health import FailureMode, HealthWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


# Why a run stops: early stopping ("plateau", "target"), a failure mode with `health.stop`, and so on.
StopReason = Literal["budget", "time", "interrupted", "plateau", "target"] | FailureMode


@dataclass(frozen=True)
class RunStarted:
    """A session of a run begins, new or resumed.

    Attributes:
        step, kimg: where it begins.
        configuration: text of a YAML file.
        evaluation_every_kimg: interval of evaluations.
        crowding_load: load of the machine, if other processes are so busy that fewer threads may be faster.
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
    evaluation_every_kimg: float | None = None


@dataclass(frozen=True)
class PhaseStarted:
    """Something between steps begins that may take long, up to the next event. May precede `RunStarted`.

    Attributes:
        text: what it is.
        kimg: where the run is; None before it has begun.
    """

    text: str
    kimg: float | None = None


@dataclass(frozen=True)
class SmallDatasetWarning:
    """The data set, or an evaluation, has too few images. Fields of what they suffice for are None.

    Attributes:
        samples: images of the data set.
        compared: how many of them are compared with generated ones.
        features: dimension of the extractor's features, if one side has no more images: its covariance lacks rank.
        real_samples: `evaluation.real_samples`, if the data set has fewer images.
        batch_size: `training.batch_size`, if the data set has fewer than `batches` batches.
        generated: images of an evaluation, if they are not more than the features.
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
    """Means over the last `training.log_every` steps.

    Attributes:
        terms: losses, accuracies and gradient norms by name.
        measured: what no run repeats. Of rank 0 `seconds/data_wait`, the wait of a step for data, and
            `memory/host_mb` and `memory/gpu_mb`, the most that its process has had so far, in units of 10^6 bytes. Of
            all workers, since the row before, those of `data.reads.read_metrics`.
    """

    step: int
    kimg: float
    images_per_second: float
    terms: dict[str, float]
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationResult:
    """The averaged generator of `step` was evaluated.

    Attributes:
        metric: name of the monitored metric, with the number of samples, as `fid50k_full`.
        value: its value. At step 0 it is that of the generator that the run began with, which is never the best.
        improved: whether it counts as an improvement.
        reported_step: step at which it is recorded, later than `step` for asynchronous evaluations.
        more: values of the other metrics by name.
        seconds_of: seconds by part of the evaluation.
        diversity: of the samples, relative to real images (`metrics.diversity`).
        untrained: value of the generator that the run began with, if it was evaluated.
        given: whether that generator had weights of another run.
        floor: as in `Summary`.
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
    floor: float | None = None


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint is complete in the run's storage, under `checkpoints/<name>`."""

    step: int
    kimg: float
    name: str


@dataclass(frozen=True)
class Attempt:
    """A group of workers on Ray, from its start to its end.

    Attributes:
        workers: how many; 0 if they were lost before they began.
        kimg: where they began.
        failure: which of them were lost, and why; None for a group that nothing happened to.
    """

    workers: int
    kimg: float
    failure: str | None = None


@dataclass(frozen=True)
class Summary:
    """How a run ended. Values of the monitored metric are None without an evaluation.

    Attributes:
        metric: name of the monitored metric.
        reason: why the run stopped.
        budget_kimg: the configured length of the run.
        untrained: value of the generator that the run began with; `given` if that had weights of another run.
        best, latest: values of the trained generator. The latest evaluation need not be at the end.
        floor: Fréchet distance of `floor_images` of the real images to all of them: as many as an evaluation generates
            (or half of the real ones, if those are few). No generator is expected to beat it. None if another metric
            is monitored.
        without_improvement: evaluations in a row, up to the last, without an improvement.
        best_checkpoint: name of the best checkpoint that still exists. After a change of the monitored metric it may
            be worse than `best`.
        seconds: wall-clock seconds of this session by phase (`total`, `start`, `training`, `evaluation`, …).
        run_seconds: seconds of all sessions of the run, each up to the checkpoint that the next resumed from; None if
            an earlier version did not record it.
        bad_samples: distinct bad samples that were replaced; None if `data.bad_samples` is not `skip`.
        health: failure modes that the run has been in, oldest first.
        attempts: the groups of workers of this session on Ray, oldest first; empty without Ray.
        step_seconds: of this session in training steps that were kept: no restart of workers has repeated them. Waits
            for data are included.
        goodput: `step_seconds` as a share of the session's time, from 0 to 1.
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
    attempts: list[Attempt] = field(default_factory=list)
    step_seconds: float = 0.0
    goodput: float | None = None

    def with_goodput(self, step_seconds: float, seconds: float) -> Summary:
        """The summary of a session of so many seconds."""
        goodput = round(step_seconds / seconds, 4) if seconds > 0 else None
        return replace(self, step_seconds=round(step_seconds, 2), goodput=goodput)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RunFinished:
    """The session ended, its state is saved."""

    summary: Summary


@dataclass(frozen=True)
class ProfileWritten:
    """The profile of some steps on rank 0.

    Attributes:
        steps: recorded steps; 0 if the session was too short.
        milliseconds: means over the steps: the whole `step`, its parts, which add up to it, and `all-reduce`, which
            overlaps with them. What runs between steps (evaluations, checkpoints) is in the summary's `seconds`.
        folder: URL of the folder with the trace.
    """

    steps: int
    milliseconds: dict[str, float]
    folder: str


@dataclass(frozen=True)
class Notice:
    """A line about a problem that does not end the run. May precede `RunStarted`."""

    text: str


@dataclass(frozen=True)
class WorkersLost(Notice):
    """Workers were lost, and the run waits for others."""


Event = (
    RunStarted
    | PhaseStarted
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
    """Receives the events of a run, on rank 0; `evaluated` on every rank."""

    def event(self, event: Event) -> None:
        """Receives an event. Must not block the training."""
        ...

    def samples(
        self, step: int, kimg: float, images: Tensor, columns: int | None = None, names: Sequence[str] = ()
    ) -> None:
        """Receives samples at fixed latents, uint8 (N, C, H, W) on the CPU, for a grid of columns with these names."""
        ...

    def real_images(self, images: Tensor, columns: int | None = None, names: Sequence[str] = ()) -> None:
        """Receives real images for a grid like that of the samples, once, at the beginning of a run."""
        ...

    def flush(self) -> Callable[[], None]:
        """Writes what it has received. The returned function waits until storage has it, or refuses it."""
        ...

    def stop_requested(self) -> bool:
        """Whether the run should save its state and stop now."""
        ...

    def save_requested(self) -> str | None:
        """Why the run should save its state now and go on, once for each reason; None where it need not."""
        ...

    def evaluated(self, event: EvaluationResult) -> None:
        """Called on every rank after an evaluation and its checkpoint; may be collective."""
        ...
