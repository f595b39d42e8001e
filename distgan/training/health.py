"""Training health: failure modes, their detectors, and when they begin and end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

FailureMode = Literal[
    "discriminator overpowers", "mode collapse", "dead generator", "diverged", "discriminator overfits"
]


@dataclass(frozen=True)
class HealthWarning:
    """A failure mode that a run is in, or was.

    Attributes:
        step, kimg: when it first began; in the event, when it begins.
        seen: the numbers that show it.
        remedy: advice: configuration keys to change.
        times: how often it has begun.
        until_kimg: when it last ended; None while it lasts.
    """

    step: int
    kimg: float
    state: FailureMode
    seen: str
    remedy: str
    times: int = 1
    until_kimg: float | None = None


# Means of metrics over a window of updates.
WindowMeans = Mapping[str, float]

# Failure modes that a detector finds, each with a sentence of the numbers that show it.
Detections = dict[FailureMode, str]

GRADIENT = "gradients/generator"

# Accuracies have the names that the objective gives them (`Objective.accuracies`).
ACCURACY = "accuracy/"

LOSSES = ("loss/generator", "loss/discriminator")

SIZES = (*LOSSES, GRADIENT, "gradients/discriminator")

_COLLAPSED_LOSS = 0.05

_HIGH_ACCURACY = 0.98

_NO_GRADIENT = 1e-6

_EXPLODED = 100.0

_SMALL = 1.0

_BEYOND = 1e5

_LOW_DIVERSITY = 0.3

_FALLEN = 0.75

_NO_DIVERSITY = 0.1

_RISING = 1.1

_OVERFIT = 0.5


def detect_overpowering_discriminator(
    means: WindowMeans, chance_loss: float | None, largest_gradient: float
) -> Detections:
    """The discriminator's loss is below 5 % of chance, and all its accuracies at least 98 %.

    Only for objectives with a `chance_loss`, where the sign of a logit has a meaning. A Wasserstein critic should be
    trained to its optimum, and its loss has no scale. With flipped labels the loss cannot become small.

    Thresholds: in provoked runs the loss fell below 1 % of chance with an accuracy of 100 %. In healthy runs
    (`quickstart`, a small `dcgan-bricks`) it stayed above 14 % with at most 97 %; in the first hundred updates of a
    small `sngan-cifar`, which recovered, it was at 1 %. The generator's gradient is reported but not a criterion: with
    the non-saturating loss it grows, in the provoked run from 8 to 200.
    """
    loss = means["loss/adversarial"]
    accuracies = {name.removeprefix(ACCURACY): mean for name, mean in means.items() if name.startswith(ACCURACY)}
    lowest = min(accuracies.values(), default=0.0)
    if chance_loss is None or loss > _COLLAPSED_LOSS * chance_loss or lowest < _HIGH_ACCURACY:
        return {}
    listed = ", ".join(f"{mean:.1%} ({name})" for name, mean in accuracies.items())
    return {
        "discriminator overpowers": (
            f"its loss was {loss:.2g} (chance: {chance_loss:.2g}), its accuracy {listed}; the generator's gradient "
            f"norm was {means[GRADIENT]:.3g} (at most {largest_gradient:.3g} before)"
        )
    }


def detect_dead_generator(means: WindowMeans, largest_gradient: float) -> Detections:
    """The generator's gradient norm is at most a millionth of its largest so far: it no longer learns."""
    gradient = means[GRADIENT]
    if gradient > _NO_GRADIENT * largest_gradient:
        return {}
    return {
        "dead generator": f"its gradient norm was {gradient:.3g}, and up to {largest_gradient:.3g} before",
    }


def detect_divergence(means: WindowMeans, typical: WindowMeans) -> Detections:
    """A loss or gradient norm is at least 100 times its typical size in the run so far, or a loss is at least 1e5.

    In healthy runs the factor stays below 9. Sizes below 1 count as 1: a Wasserstein critic's gradients begin a
    thousand times smaller than they soon are, and its loss passes through 0. The absolute bound is for runs that
    explode at once. No objective here reaches it: the loss of a Wasserstein critic with slopes of 1 is as large as the
    distance between images, some hundred.
    """
    beyond = [name for name in LOSSES if abs(means[name]) >= _BEYOND]
    if beyond:
        return {"diverged": f"{beyond[0]} was {means[beyond[0]]:.3g}"}
    factors = {name: _size(means, name) / size for name, size in typical.items()}
    name = max(factors, key=lambda key: factors[key], default=None)
    if name is None or factors[name] < _EXPLODED:
        return {}
    return {"diverged": f"{name} was {means[name]:.3g}, {factors[name]:,.0f} times its typical size in this run"}


def log_size(means: WindowMeans, name: str) -> float:
    """The logarithm of a metric's size, at least 0. The exponential of its mean is the typical size."""
    return math.log(_size(means, name))


def detect_mode_collapse(diversity: float, largest: float) -> Detections:
    """Diversity is below 0.3 and below three quarters of its largest, or below 0.1 and not rising.

    `diversity` is that of samples relative to real images (`metrics.diversity`); `largest` that of earlier evaluations
    of the trained generator, 0 without one. Healthy runs have 0.4 to 0.9. An untrained DCGAN has 0.02 to 0.04 and may
    rise slowly, which is no collapse.
    """
    if diversity < min(_LOW_DIVERSITY, _FALLEN * largest):
        before = f"at most {largest:.2g} times before"
    elif max(diversity, largest) < _NO_DIVERSITY and diversity <= _RISING * largest:
        before = "and never more before"
    else:
        return {}
    return {"mode collapse": f"samples were {diversity:.2g} times as diverse as real images, {before}"}


def detect_overfitting(gap: float) -> Detections:
    """The discriminator's gap between training and held-out images (`training.held_out`) is at least 0.5.

    Bricks with `quickstart` at 32 pixels and a batch of 32: of 100 images it passes 0.5 at 8 kimg and reaches 1 at 18;
    of 5,000 it stays below 0.22 for 40 kimg.
    """
    if gap < _OVERFIT:
        return {}
    return {
        "discriminator overfits": (
            f"its logits of held-out real images were {gap:.0%} of the way from those of training images to those of "
            f"generated ones"
        )
    }


def _size(means: WindowMeans, name: str) -> float:
    return max(abs(means[name]), _SMALL)


# Generator updates in a window. Workers synchronize their metrics after each.
WINDOW = 50

# The first updates are not checked: their extremes mean nothing.
WARM_UP = 200

_WATCHED = (*SIZES, "loss/adversarial")

# A failure mode begins after so many windows (or evaluations) in a row with a detection, and ends likewise.
_WINDOWS: dict[FailureMode, int] = {"discriminator overpowers": 4, "dead generator": 4, "diverged": 2}

_EVALUATIONS: dict[FailureMode, int] = {"mode collapse": 2}

_GAPS: dict[FailureMode, int] = {"discriminator overfits": 4}

# The exponential of more is no float.
_LARGEST_LOG = 709.0

# Exact also in readers of JSON that have floats only.
NonNegative = Annotated[int, Field(ge=0, le=2**53)]


@dataclass
class Episode:
    """A failure mode that a run is in, or was.

    Attributes:
        step, images: generator updates and real images after which it first began.
        seen: the numbers that showed it when it last began.
        times: how often it has begun.
        until: real images after which it last ended; None while it lasts.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: NonNegative
    images: NonNegative
    seen: str
    times: NonNegative = 1
    until: NonNegative | None = None


@dataclass
class Health:
    """The state of the detectors, in plain numbers: a part of a run's progress.

    Attributes:
        sums, updates: sums of the watched metrics over the current window, and the number of its updates.
        log_sizes, windows: sums of `log_size` over the windows in which nothing diverged, and the number of those.
        largest_gradient: the generator's largest gradient norm among all windows.
        largest_diversity: among the evaluations of the trained generator.
        streaks: windows (or evaluations) in a row that contradict the current status of a failure mode.
        episodes: failure modes that have occurred, oldest first.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sums: dict[str, float] = field(default_factory=dict)
    updates: NonNegative = 0
    log_sizes: dict[str, float] = field(default_factory=dict)
    windows: NonNegative = 0
    largest_gradient: float = 0.0
    largest_diversity: float = 0.0
    streaks: dict[FailureMode, NonNegative] = field(default_factory=dict)
    episodes: dict[FailureMode, Episode] = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        """Whether a run can have these numbers: the exponential of each mean is a float."""
        return all(0 <= total <= _LARGEST_LOG * self.windows for total in self.log_sizes.values())

    @property
    def ongoing(self) -> list[FailureMode]:
        """Failure modes that the run is in."""
        return [mode for mode, episode in self.episodes.items() if episode.until is None]

    def add_steps(
        self, steps: Sequence[Mapping[str, float]], step: int, images: int, chance_loss: float | None
    ) -> list[FailureMode]:
        """Adds the metrics of the updates up to `step`, after `images` real images. Returns the modes that begin.

        A window ends where `step` is a multiple of `WINDOW`; no call may go beyond that. `chance_loss` is the
        objective's.
        """
        for metrics in steps:
            # Without a penalty, all of the loss is adversarial.
            values = {"loss/adversarial": metrics["loss/discriminator"], **metrics}
            for name, value in values.items():
                if name in _WATCHED or name.startswith(ACCURACY):
                    self.sums[name] = self.sums.get(name, 0.0) + value
        self.updates += len(steps)
        if step % WINDOW or not self.updates:
            return []
        means = {name: total / self.updates for name, total in self.sums.items()}
        self.sums, self.updates = {}, 0
        found = self._detect(means, chance_loss) if step > WARM_UP else {}
        self.largest_gradient = max(self.largest_gradient, means[GRADIENT])
        if "diverged" not in found:
            for name in SIZES:
                self.log_sizes[name] = self.log_sizes.get(name, 0.0) + log_size(means, name)
            self.windows += 1
        return self._update_episodes(found, _WINDOWS, step, images)

    def add_diversity(self, diversity: float, step: int, images: int) -> list[FailureMode]:
        """Adds the diversity of the generator of a `step`. Returns the modes that begin.

        While the discriminator overpowers, low diversity is its effect, and no mode collapse.
        """
        if step == 0:
            return []
        largest, self.largest_diversity = self.largest_diversity, max(self.largest_diversity, diversity)
        if step <= WARM_UP or "discriminator overpowers" in self.ongoing:
            return []
        return self._update_episodes(detect_mode_collapse(diversity, largest), _EVALUATIONS, step, images)

    def add_gap(self, gap: float, step: int, images: int) -> list[FailureMode]:
        """Adds the gap between training and held-out images at the end of a window. Returns the modes that begin."""
        if step <= WARM_UP:
            return []
        return self._update_episodes(detect_overfitting(gap), _GAPS, step, images)

    def _detect(self, means: WindowMeans, chance_loss: float | None) -> Detections:
        typical = {name: math.exp(total / self.windows) for name, total in self.log_sizes.items()}
        return {
            **detect_overpowering_discriminator(means, chance_loss, self.largest_gradient),
            **detect_dead_generator(means, self.largest_gradient),
            **detect_divergence(means, typical),
        }

    def _update_episodes(
        self, found: Detections, patience: Mapping[FailureMode, int], step: int, images: int
    ) -> list[FailureMode]:
        begun = []
        for mode, times in patience.items():
            contradicts = (mode in found) != (mode in self.ongoing)
            self.streaks[mode] = self.streaks.get(mode, 0) + 1 if contradicts else 0
            if self.streaks[mode] < times:
                continue
            self.streaks[mode] = 0
            if mode not in found:
                self.episodes[mode].until = images
                continue
            begun.append(mode)
            if mode in self.episodes:
                episode = self.episodes[mode]
                episode.seen, episode.times, episode.until = found[mode], episode.times + 1, None
            else:
                self.episodes[mode] = Episode(step, images, found[mode])
        return begun
