"""Samplers: the next trial as a function of the trials so far, so that a killed search resumes exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from distgan.config.load import flatten
from distgan.errors import UserError
from distgan.search.expressions import Value, close
from distgan.search.pb2 import PB2
from distgan.search.plan import SearchLimits, SearchPlan
from distgan.search.population import Explore, Member, first_generation, next_generation, perturb
from distgan.search.ranking import leaderboard
from distgan.search.record import Trial, require_record
from distgan.search.space import Space


def known_trials(plan: SearchPlan, space: Space) -> list[Trial]:
    """The ended trials of the plan's `warm_start` that lie in the space; none without `warm_start`.

    Raises UserError where that is no search, used another metric or other data, or has no trial in the space.
    """
    if plan.warm_start is None:
        return []
    earlier = require_record(plan.warm_start)
    if earlier.plan.metric != plan.metric:
        raise UserError(
            f"--warm-start {plan.warm_start}: it was measured by {earlier.plan.metric}, and this search is by "
            f"{plan.metric}; ask for the same --metric and evaluation.samples"
        )
    if earlier.plan.data_hash != plan.data_hash:
        raise UserError(f"--warm-start {plan.warm_start}: it was a search on other data; leave it out")
    shared = flatten(earlier.plan.config)
    found = []
    for trial in earlier.trials:
        if not trial.ended or trial.repeats is not None:
            continue
        values = {**shared, **trial.overrides}
        draw = space.nearest(values)
        resolved = space.overrides(draw)
        if all(key in values and close(value, values[key]) for key, value in resolved.items()):
            found.append(trial.model_copy(update={"draw": draw}))
    if not found:
        raise UserError(
            f"--warm-start {plan.warm_start}: none of its {len(earlier.trials)} trials is in this space; leave it out, "
            f"or widen the ranges"
        )
    return found


@dataclass(frozen=True)
class Draw:
    """The values of a new trial (see `Trial`). `seed_offset` is added to the configuration's seed."""

    values: dict[str, Value]
    repeats: int | None = None
    seed_offset: int = 0
    generation: int = 0
    parent: int | None = None


# `wait`: none before another trial has ended. `done`: no more trials.
Suggestion = Draw | Literal["wait", "done"]


class Sampler(Protocol):
    """Decides which trials a search tries."""

    def next(self, trials: Sequence[Trial]) -> Suggestion:
        """The draw of the trial that follows all `trials` so far, which are sorted by number."""
        ...


class FixedSampler:
    """A sampler of a fixed list of draws."""

    def __init__(self, draws: Sequence[dict[str, Value]]) -> None:
        self._draws = draws

    def next(self, trials: Sequence[Trial]) -> Suggestion:
        return Draw(self._draws[len(trials)]) if len(trials) < len(self._draws) else "done"


def random_sampler(space: Space, seed: int, count: int, first: dict[str, Value] | None) -> FixedSampler:
    """`count` random draws of a seed, after `first`, the configuration itself, where the space contains it."""
    begin = [] if first is None else [first]
    return FixedSampler([*begin, *(space.sample(seed, number) for number in range(len(begin), count))][:count])


def grid_sampler(space: Space, points: int) -> FixedSampler:
    """All points of the grid. Raises UserError for too many."""
    return FixedSampler(space.grid(points))


class SeedRepeats:
    """After all other trials, repeats the best of them with other seeds, so that the winner is not luck.

    The best trials are chosen once, before the first repetition.
    """

    def __init__(self, inner: Sampler, plan: SearchPlan, limits: SearchLimits) -> None:
        self._inner, self._plan, self._limits = inner, plan, limits

    def next(self, trials: Sequence[Trial]) -> Suggestion:
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


# Ends after which another member may resume the state.
_LIVES = ("budget", "time", "target")


class PopulationSampler:
    """A sampler: a generation starts when all trials of the previous one have ended.

    Trial `generation · size + member` is that member's. It resumes the state of a trial of the previous generation,
    mostly its own.
    """

    def __init__(self, plan: SearchPlan, limits: SearchLimits, space: Space, first: dict[str, Value] | None) -> None:
        self._plan, self._size, self._space, self._first = plan, limits.trials, space, first

    def next(self, trials: Sequence[Trial]) -> Suggestion:
        generation, place = divmod(len(trials), self._size)
        if generation >= generation_count(self._plan):
            return "done"
        if not all(trial.ended for trial in trials[: generation * self._size]):
            return "wait"
        member = self._members(trials, generation)[place]
        parent = (generation - 1) * self._size + member.parent if generation else None
        return Draw(dict(member.values), generation=generation, parent=parent)

    def _members(self, trials: Sequence[Trial], generation: int) -> list[Member]:
        if generation == 0:
            return first_generation(self._space, self._plan.seed, self._size, self._first)
        history = [
            [self._member(trial) for trial in trials[begin : begin + self._size]]
            for begin in range(0, generation * self._size, self._size)
        ]
        better = self._plan.higher_is_better
        explore: Explore = PB2(history, better) if self._plan.scheduler == "pb2" else perturb
        return next_generation(self._space, self._plan.seed, history[-1], explore, higher_is_better=better)

    def _member(self, trial: Trial) -> Member:
        generation, place = divmod(trial.number, self._size)
        parent = trial.number % self._size if trial.parent is None else trial.parent % self._size
        value = trial.latest if trial.state in _LIVES else None
        return Member(place, generation, trial.draw, parent, value)


def generation_count(plan: SearchPlan) -> int:
    """The number of generations; a rest of less than half a generation belongs to the last one."""
    return max(1, round(plan.kimg / plan.interval_kimg))


def generation_end(plan: SearchPlan, generation: int) -> float:
    """The end of a generation, in kimg."""
    return plan.kimg if generation + 1 >= generation_count(plan) else (generation + 1) * plan.interval_kimg
