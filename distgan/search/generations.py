"""Population-based training as a sequence of trials: each is one member in one generation."""

from __future__ import annotations

from collections.abc import Sequence

from distgan.search.expressions import Value
from distgan.search.pb2 import PB2
from distgan.search.plan import SearchLimits, SearchPlan
from distgan.search.population import Explore, Member, first_generation, next_generation, perturb
from distgan.search.record import Trial
from distgan.search.samplers import Draw, Suggestion
from distgan.search.space import Space

# Ends after which another member may resume the state.
_LIVES = ("budget", "time", "target")


class PopulationSampler:
    """A sampler: a generation starts when all trials of the previous one have ended, in whatever order.

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
