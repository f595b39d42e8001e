"""Exploration by a model of the improvement over time: population-based bandits, PB2 (Parker-Holder et al. 2020)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distgan.errors import UserError
from distgan.search.expressions import Value, is_number
from distgan.search.population import Member
from distgan.search.ranges import ContinuousRange, LogUniform, Uniform
from distgan.search.space import Space

_CANDIDATES = 1000

# The newest observations that the model is of.
_MOST_OBSERVATIONS = 256

# What the model is chosen from, by its likelihood: length scale in a range of length 1, forgetting a generation, and
# the variance of the noise where that of the function is 1.
_LENGTHS, _FORGETTING, _NOISE = (0.1, 0.2, 0.4, 0.8), (0.0, 0.05, 0.2), (0.01, 0.1, 0.5)

Array = NDArray[np.float64]


class Kernel(NamedTuple):
    """k((x, t), (x', t')) = exp(−‖x − x'‖² / 2l²) · (1 − ε)^(|t − t'| / 2), and the variance of the noise."""

    length: float
    forgetting: float
    noise: float

    def __call__(self, one: Points, other: Points) -> Array:
        """Covariances, shape (N, M)."""
        squares = ((one.positions[:, None] - other.positions[None]) ** 2).sum(2)
        ages = np.abs(one.times[:, None] - other.times[None])
        covariances: Array = np.exp(-squares / (2 * self.length**2)) * (1 - self.forgetting) ** (ages / 2)
        return covariances


class Points(NamedTuple):
    """Positions in the unit cube, (N, D), and the generations that trained there, (N,)."""

    positions: Array
    times: Array


@dataclass(frozen=True)
class PB2:
    """An `Explore`: the values of the highest upper confidence bound of the improvement in the next generation.

    The bound is that of a Gaussian process over values and generations, which forgets older generations. Values of
    other members of the generation count as observed, with the mean's prediction, so that members do not explore
    the same values.

    Attributes:
        history: all generations up to now, ended, the oldest first.
        higher_is_better: whether a higher monitored measure is better.
    """

    history: Sequence[Sequence[Member]]
    higher_is_better: bool = False

    def __call__(self, space: Space, seed: int, member: Member, known: Sequence[Member]) -> dict[str, Value]:
        """Raises UserError for a space that is not continuous."""
        check_continuous(space)
        observed, improvements = observations(space, self.history, higher_is_better=self.higher_is_better)
        rng = Random(f"{seed}/{member.generation}/{member.number}/candidates")
        positions = quasi_random(_CANDIDATES, [rng.random() for _ in space.free])
        candidates = Points(positions, np.full(len(positions), float(member.generation)))
        kernel = likeliest(observed, improvements)
        mean, _ = posterior(kernel, observed, improvements, candidates)
        taken = _joined(observed, _points(space, known))
        _, deviation = posterior(kernel, taken, np.zeros(len(taken.times)), candidates)
        # Grows slowly with what has been seen, as in the authors' experiments.
        width = math.sqrt(0.2 + max(0.0, math.log(0.4 * max(1, len(improvements)))))
        best = positions[int(np.argmax(mean + width * deviation))]
        return {name: drawn.at(float(place)) for (name, drawn), place in zip(space.free.items(), best, strict=True)}


def check_continuous(space: Space) -> None:
    """Raises UserError, naming the key, for a space with a draw that is not of a continuous range."""
    for key, entry in space.entries.items():
        if entry.distribution is not None and not isinstance(entry.distribution, ContinuousRange):
            raise UserError(
                f"{key}: `{entry.text:.100}`: PB2 models continuous ranges only: write {LogUniform.form} or "
                f"{Uniform.form}, give it one value, or take plain population-based training"
            )


def observations(
    space: Space, history: Sequence[Sequence[Member]], *, higher_is_better: bool = False
) -> tuple[Points, Array]:
    """The points at which members trained, and their improvements relative to their generation, (N,).

    An improvement is that over the value of the state that a member began with. It is standardized within the
    generation, as a distance falls fast at first. All members of the first generation began alike. A failed member
    counts as a standard deviation worse than the worst.
    """
    sign = 1.0 if higher_is_better else -1.0
    members: list[Member] = []
    improvements: list[float] = []
    before: dict[int, float] = {}
    for generation in history:
        ended = {one.number: sign * one.value for one in generation if one.lives and one.value is not None}
        gains = {one.number: ended[one.number] - before.get(one.parent, 0.0) for one in generation if one.lives}
        values = np.array(list(gains.values()) or [0.0])
        scale = float(values.std()) or 1.0
        standard = {number: (gain - float(values.mean())) / scale for number, gain in gains.items()}
        worst = min(standard.values(), default=0.0) - 1
        members += generation
        improvements += [standard.get(one.number, worst) for one in generation]
        before = ended
    return (
        _points(space, members[-_MOST_OBSERVATIONS:]),
        np.array(improvements[-_MOST_OBSERVATIONS:], np.float64),
    )


def likeliest(observed: Points, improvements: Array) -> Kernel:
    """The kernel of the highest marginal likelihood, of equal ones the first."""
    kernels = [Kernel(*each) for each in itertools.product(_LENGTHS, _FORGETTING, _NOISE)]
    return max(kernels, key=lambda kernel: _log_likelihood(kernel, observed, improvements))


def posterior(kernel: Kernel, observed: Points, improvements: Array, at: Points) -> tuple[Array, Array]:
    """Mean and standard deviation of the function at M points, both (M,) (Rasmussen and Williams 2006, alg. 2.1)."""
    if len(observed.times) == 0:
        return np.zeros(len(at.times)), np.ones(len(at.times))
    lower, across = _factor(kernel, observed), kernel(observed, at)
    solved = np.linalg.solve(lower, np.column_stack([improvements, across]))
    mean: Array = solved[:, 1:].T @ solved[:, 0]
    return mean, np.sqrt(np.maximum(1 - (solved[:, 1:] ** 2).sum(0), 0.0))


def quasi_random(count: int, shift: Sequence[float]) -> Array:
    """Points (count, D) that fill the unit cube evenly: a shifted additive recurrence.

    Its steps are the powers of 1/φ, φ the root above 1 of φ^(D + 1) = φ + 1, the golden ratio where D is 1.
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (len(shift) + 1))
    steps = root ** -np.arange(1.0, len(shift) + 1)
    points: Array = (np.asarray(shift) + np.arange(1, count + 1)[:, None] * steps) % 1.0
    return points


def _log_likelihood(kernel: Kernel, observed: Points, improvements: Array) -> float:
    if len(observed.times) == 0:
        return 0.0
    lower = _factor(kernel, observed)
    return float(-0.5 * (np.linalg.solve(lower, improvements) ** 2).sum() - np.log(np.diag(lower)).sum())


def _factor(kernel: Kernel, observed: Points) -> Array:
    """The Cholesky factor of the observations' covariance, lower."""
    covariances = kernel(observed, observed) + kernel.noise * np.eye(len(observed.times))
    return np.asarray(np.linalg.cholesky(covariances), np.float64)


def _points(space: Space, members: Sequence[Member]) -> Points:
    positions = [[_position(drawn, one.values[name]) for name, drawn in space.free.items()] for one in members]
    times = np.array([one.generation for one in members], np.float64)
    return Points(np.array(positions, np.float64).reshape(len(members), len(space.free)), times)


def _position(distribution: object, value: Value) -> float:
    assert isinstance(distribution, ContinuousRange)
    assert is_number(value)
    return distribution.quantile(value)


def _joined(one: Points, other: Points) -> Points:
    return Points(np.concatenate([one.positions, other.positions]), np.concatenate([one.times, other.times]))
