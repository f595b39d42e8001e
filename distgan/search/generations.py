"""Population-based training as a sequence of trials: each is a member's stretch of one generation."""

from __future__ import annotations

from collections.abc import Sequence

from distgan.search.expressions import Value
from distgan.search.pb2 import PB2
from distgan.search.plan import Limits, Plan
from distgan.search.population import Explore, Member, first_generation, next_generation, perturb
from distgan.search.record import Trial
from distgan.search.samplers import Draw, Next
from distgan.search.space import Space

# Ends after which a member's state is worth going on from.
_LIVES = ("budget", "time", "target")


class Generations:
    """A generation begins when all trials of the one before have ended, so it does not depend on which did first.

    Trial number `generation · size + member` is that member's; it takes over the state of a trial of the generation
    before, mostly its own.
    """

    def __init__(self, plan: Plan, limits: Limits, space: Space, first: dict[str, Value] | None) -> None:
        self._plan, self._size, self._space, self._first = plan, limits.trials, space, first

    def next(self, trials: Sequence[Trial]) -> Next:
        generation, place = divmod(len(trials), self._size)
        if generation >= generations(self._plan):
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


def generations(plan: Plan) -> int:
    """How many there are in the whole length; less than half of one that is left over belongs to the last."""
    return max(1, round(plan.kimg / plan.interval_kimg))


def generation_end(plan: Plan, generation: int) -> float:
    """Where a generation ends, in kimg."""
    return plan.kimg if generation + 1 >= generations(plan) else (generation + 1) * plan.interval_kimg
