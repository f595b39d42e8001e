"""What the next trial of a search is: a function of the trials so far, so that a search goes on as if never killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from distgan.search.plan import Limits, Plan
from distgan.search.ranking import leaderboard
from distgan.search.space import Space
from distgan.search.trials import Trial
from distgan.search.values import Value


@dataclass(frozen=True)
class Draw:
    """A trial to be: see `Trial`. `seed_offset` is added to the configuration's seed."""

    values: dict[str, Value]
    repeats: int | None = None
    seed_offset: int = 0
    generation: int = 0
    parent: int | None = None


# Nothing before some trial has ended, or nothing any more.
Next = Draw | Literal["wait", "done"]


class Proposals(Protocol):
    """Decides what is tried."""

    def next(self, trials: Sequence[Trial]) -> Next:
        """The draw of the trial after these, which are all there are, by number."""
        ...


class Listed:
    """Draws that are known from the beginning."""

    def __init__(self, draws: Sequence[dict[str, Value]]) -> None:
        self._draws = draws

    def next(self, trials: Sequence[Trial]) -> Next:
        return Draw(self._draws[len(trials)]) if len(trials) < len(self._draws) else "done"


def random_draws(space: Space, seed: int, count: int, first: dict[str, Value] | None) -> Listed:
    """`count` draws of a seed, the `first` of them the configuration itself where the space has it."""
    begin = [] if first is None else [first]
    return Listed([*begin, *(space.sample(seed, number) for number in range(len(begin), count))][:count])


def grid_draws(space: Space, points: int) -> Listed:
    """Every point of the grid. Raises UserError where there are too many."""
    return Listed(space.grid(points))


class Repeating:
    """When all other trials have ended, the best of them again with other seeds, so that the winner is not luck.

    Which are the best is decided once, as the first of them is proposed.
    """

    def __init__(self, inner: Proposals, plan: Plan, limits: Limits) -> None:
        self._inner, self._plan, self._limits = inner, plan, limits

    def next(self, trials: Sequence[Trial]) -> Next:
        drawn = [trial for trial in trials if trial.repeats is None]
        found = self._inner.next(drawn)
        if found != "done" or self._limits.seeds == 1:
            return found
        if not all(trial.ended for trial in drawn):
            return "wait"
        best = leaderboard(self._plan, drawn)[: self._limits.top]
        for ranked in best:
            begun = sum(trial.repeats == ranked.trial.number for trial in trials)
            if begun < self._limits.seeds - 1:
                return Draw(dict(ranked.trial.draw), repeats=ranked.trial.number, seed_offset=begun + 1)
        return "done"
