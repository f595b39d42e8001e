"""Training health: named failure modes, their rules, and when they begin and end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

FailureMode = Literal["discriminator overpowers", "mode collapse", "dead generator", "diverged"]


@dataclass(frozen=True)
class HealthWarning:
    """A run is not healthy.

    Attributes:
        step, kimg: when the state first began, in the event when it begins.
        seen: the numbers that show it.
        remedy: what helps, in configuration keys.
        times: how often it has begun.
        until_kimg: where it last ended; None while it goes on.
    """

    step: int
    kimg: float
    state: FailureMode
    seen: str
    remedy: str
    times: int = 1
    until_kimg: float | None = None


# Means over a window of updates, by the names that the terms have in the metrics.
Means = Mapping[str, float]

# States whose sign is there, each with a sentence of what was seen.
Signs = dict[FailureMode, str]

GRADIENT = "gradients/generator"

# Accuracies have the names that the objective gives them (`Objective.accuracies`).
ACCURACY = "accuracy/"

LOSSES = ("loss/generator", "loss/discriminator")

SIZES = (*LOSSES, GRADIENT, "gradients/discriminator")

_COLLAPSED_LOSS = 0.05

_ALMOST_ALL = 0.98

_NO_GRADIENT = 1e-6

_EXPLODED = 100.0

_SMALL = 1.0

_BEYOND = 1e5

_ALIKE = 0.3

_FALLEN = 0.75

_ALL_ALIKE = 0.1

_RISING = 1.1


def discriminator_overpowers(means: Means, chance_loss: float | None, largest_gradient: float) -> Signs:
    """The discriminator's loss is next to nothing and it tells almost all images, real and fake.

    Asked of objectives in which a logit's sign means something (`Objective.chance_loss`). A Wasserstein critic is meant
    to be trained to its best, its loss estimates a distance that has no scale, and only differences of its logits
    mean anything: of such a critic there is no overpowering to see, and nothing is said. Nor with flipped labels,
    with which the loss cannot get small, and the logits not large.

    Where it was provoked the loss fell to 1 % of chance and far below, and all images were told. In healthy runs
    (`quickstart`, a small `dcgan-bricks`) it stayed above 14 % with at most 97 % told; in the first hundred updates of
    a small `sngan-cifar`, which recovered, it was at 1 %. The generator's gradient is told but not asked for: with the
    non-saturating loss it does not vanish but grows, in the provoked run from 8 to 200.
    """
    loss = means["loss/adversarial"]
    accuracies = {name.removeprefix(ACCURACY): mean for name, mean in means.items() if name.startswith(ACCURACY)}
    if chance_loss is None or loss > _COLLAPSED_LOSS * chance_loss or min(accuracies.values(), default=0) < _ALMOST_ALL:
        return {}
    listed = ", ".join(f"{mean:.1%} ({name})" for name, mean in accuracies.items())
    return {
        "discriminator overpowers": (
            f"its loss was {loss:.2g} (chance: {chance_loss:.2g}), its accuracy {listed}; the generator's gradient "
            f"norm was {means[GRADIENT]:.3g} (at most {largest_gradient:.3g} before)"
        )
    }


def no_gradient(means: Means, largest_gradient: float) -> Signs:
    """The generator's gradient is a millionth of what it has been: it learns nothing any more."""
    gradient = means[GRADIENT]
    if gradient > _NO_GRADIENT * largest_gradient:
        return {}
    return {
        "dead generator": f"its gradient had a norm of {gradient:.3g}, and of up to {largest_gradient:.3g} before",
    }


def exploded(means: Means, typical: Means) -> Signs:
    """A loss or a gradient is 100 times what is typical of the run so far, or a loss beyond any scale.

    In healthy runs none gets to 9 times. Sizes below 1 count as 1: a Wasserstein critic's gradients begin a thousand
    times smaller than they soon are, and its loss passes through 0. A run can explode before it has a past, but no
    objective here has losses of 100,000: those of a Wasserstein critic with slopes of 1 are as large as images are
    far apart, some hundred.
    """
    beyond = [name for name in LOSSES if abs(means[name]) >= _BEYOND]
    if beyond:
        return {"diverged": f"{beyond[0]} was {means[beyond[0]]:.3g}"}
    factors = {name: _size(means, name) / size for name, size in typical.items()}
    name = max(factors, key=lambda key: factors[key], default=None)
    if name is None or factors[name] < _EXPLODED:
        return {}
    return {"diverged": f"{name} was {means[name]:.3g}, {factors[name]:,.0f} times the size that is typical of the run"}


def log_size(means: Means, name: str) -> float:
    """The logarithm of a term's size, at least 0; its mean over the past is that of what is typical."""
    return math.log(_size(means, name))


def alike(diversity: float, widest: float) -> Signs:
    """Samples lie much closer together than real images do, and have lain a third farther apart, or never farther.

    `widest` is the largest diversity (`metrics.diversity`) of earlier evaluations of what was trained, 0 where there
    is none. Below 0.3 samples are alike; healthy runs have 0.4 to 0.9. That an untrained generator's are alike too
    (0.02 to 0.04 of a DCGAN) is no collapse, nor that they begin to differ only slowly: a generator that has not
    fallen is in it only below 0.1, where it does not get better.
    """
    if diversity < min(_ALIKE, _FALLEN * widest):
        before = f"{widest:.2g} times at most before"
    elif max(diversity, widest) < _ALL_ALIKE and diversity <= _RISING * widest:
        before = "never farther before"
    else:
        return {}
    return {"mode collapse": f"samples lay {diversity:.2g} times as far apart as real images, {before}"}


def _size(means: Means, name: str) -> float:
    return max(abs(means[name]), _SMALL)


# Updates of the generator a window; all workers meet after each.
WINDOW = 50

# In the first updates much is extreme that means nothing: they are not judged.
WARM_UP = 200

_WATCHED = (*SIZES, "loss/adversarial")

# After how many windows, or evaluations, in a row that speak against what is the case a state begins or ends.
_WINDOWS: dict[FailureMode, int] = {"discriminator overpowers": 4, "dead generator": 4, "diverged": 2}

_EVALUATIONS: dict[FailureMode, int] = {"mode collapse": 2}

# No float is larger than the exponential of it.
_LARGEST_LOG = 709.0

Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass
class Episode:
    """That a run was in a state.

    Attributes:
        step, images: generator updates and real images after which it first began.
        times: how often it has begun.
        seen: what was seen when it last began.
        until: real images after which it last ended; None while it goes on.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    step: Count
    images: Count
    seen: str
    times: Count = 1
    until: Count | None = None


@dataclass
class Health:
    """Plain numbers: the window under way, what the run's past was like, and the states that it has been in.

    Attributes:
        sums, updates: of the watched terms, and how many updates, in the window under way.
        logs, windows: sums of the logarithms of what may explode, and over how many windows that were in order.
        largest_gradient: of the generator, among all windows.
        widest: largest diversity of what was trained.
        streaks: how many times in a row what was seen speaks against what is the case.
        spells: by state, in the order in which they first began.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sums: dict[str, float] = field(default_factory=dict)
    updates: Count = 0
    logs: dict[str, float] = field(default_factory=dict)
    windows: Count = 0
    largest_gradient: float = 0.0
    widest: float = 0.0
    streaks: dict[FailureMode, Count] = field(default_factory=dict)
    episodes: dict[FailureMode, Episode] = field(default_factory=dict)

    @property
    def is_possible(self) -> bool:
        """Whether these numbers can be those of a run: its means are taken of them."""
        return all(0 <= total <= _LARGEST_LOG * self.windows for total in self.logs.values())

    @property
    def ongoing(self) -> list[FailureMode]:
        """The states that the run is in."""
        return [state for state, spell in self.episodes.items() if spell.until is None]

    def trained(
        self, terms: Sequence[Mapping[str, float]], step: int, images: int, chance_loss: float | None
    ) -> list[FailureMode]:
        """Takes the terms of the updates up to `step`, `images` real images into the run; the states that begin.

        A window ends with a `step` that is a multiple of `WINDOW`: the workers meet there. `chance_loss` is the
        objective's.
        """
        for row in terms:
            # An update without a penalty may have no such term: all of its loss is adversarial.
            whole = {"loss/adversarial": row["loss/discriminator"], **row}
            for name in (*_WATCHED, *(name for name in row if name.startswith(ACCURACY))):
                if name in whole:
                    self.sums[name] = self.sums.get(name, 0.0) + whole[name]
        self.updates += len(terms)
        if step % WINDOW or not self.updates:
            return []
        means = {name: total / self.updates for name, total in self.sums.items()}
        self.sums, self.updates = {}, 0
        signs = self._signs(means, chance_loss) if step > WARM_UP else {}
        self.largest_gradient = max(self.largest_gradient, means[GRADIENT])
        if "diverged" not in signs:
            for name in SIZES:
                self.logs[name] = self.logs.get(name, 0.0) + log_size(means, name)
            self.windows += 1
        return self._judge(signs, _WINDOWS, step, images)

    def evaluated(self, diversity: float, step: int, images: int) -> list[FailureMode]:
        """Takes the diversity of the generator of a `step`; the states that begin.

        While the discriminator overpowers, samples that are alike are its doing, and no collapse.
        """
        if step == 0:
            return []
        widest, self.widest = self.widest, max(self.widest, diversity)
        if step <= WARM_UP or "discriminator overpowers" in self.ongoing:
            return []
        return self._judge(alike(diversity, widest), _EVALUATIONS, step, images)

    def _signs(self, means: Means, chance_loss: float | None) -> Signs:
        typical = {name: math.exp(total / self.windows) for name, total in self.logs.items()}
        return {
            **discriminator_overpowers(means, chance_loss, self.largest_gradient),
            **no_gradient(means, self.largest_gradient),
            **exploded(means, typical),
        }

    def _judge(self, signs: Signs, patience: Mapping[FailureMode, int], step: int, images: int) -> list[FailureMode]:
        begun = []
        for state, times in patience.items():
            changes = (state in signs) != (state in self.ongoing)
            self.streaks[state] = self.streaks.get(state, 0) + 1 if changes else 0
            if self.streaks[state] < times:
                continue
            self.streaks[state] = 0
            if state not in signs:
                self.episodes[state].until = images
                continue
            begun.append(state)
            if state in self.episodes:
                spell = self.episodes[state]
                spell.seen, spell.times, spell.until = signs[state], spell.times + 1, None
            else:
                self.episodes[state] = Episode(step, images, signs[state])
        return begun
