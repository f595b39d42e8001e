"""Population-based training (Jaderberg et al. 2017) in generations that all members end together.

Members train for equally long. Then each of the worst takes over the state of one of the best and explores: it resumes
with other values. Everything here is a function of the seed, the generation and the member's number, never of the
order in which members end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias

from distgan.errors import UserError
from distgan.search.expressions import Value
from distgan.search.space import Space

QUANTILE = 0.25

RESAMPLE = 0.25

FACTORS = (0.8, 1.2)


@dataclass(frozen=True)
class Member:
    """A member of the population in one generation.

    Attributes:
        number: its index in the population, from 0, the same in all generations.
        generation: from 0.
        values: a value for each name of `Space.free`, with which it trains in this generation.
        parent: the number of the member of the previous generation whose state it resumes: its own, unless it takes
            over another's. In the first generation its own.
        value: the monitored measure at the end of the generation; None before that, and for one that diverged or
            failed.
    """

    number: int
    generation: int
    values: Mapping[str, Value]
    parent: int
    value: float | None = None

    @property
    def takes_over(self) -> bool:
        """Whether it resumes another member's state, with values of its own."""
        return self.parent != self.number

    @property
    def lives(self) -> bool:
        """Whether it ended its generation with a value."""
        return self.value is not None and math.isfinite(self.value)


# From the space, the seed, a member that takes over a state (with the values of the one that it takes over from) and
# those of its generation whose values are known: the values that it resumes with.
Explore: TypeAlias = Callable[[Space, int, Member, Sequence[Member]], dict[str, Value]]


def first_generation(space: Space, seed: int, size: int, initial: Mapping[str, Value] | None = None) -> list[Member]:
    """Members whose values are drawn; of the first one they are `initial` where that is given."""
    drawn = [space.sample(seed, number) for number in range(size)]
    if initial is not None:
        drawn[0] = dict(initial)
    return [Member(number, 0, values, number) for number, values in enumerate(drawn)]


def perturb(
    space: Space, seed: int, member: Member, known: Sequence[Member], resample: float = RESAMPLE
) -> dict[str, Value]:
    """Draws each value anew, with probability `resample`, else multiplies it by 0.8 or 1.2.

    Values stay in their range; an integer changes by at least 1, a choice moves to a neighbor.
    """
    found: dict[str, Value] = {}
    for name, distribution in space.free.items():
        rng = _draws(seed, member.generation, member.number, name)
        if rng.random() < resample:
            found[name] = distribution.sample(rng)
        else:
            found[name] = distribution.perturbed(member.values[name], rng.choice(FACTORS))
    return found


def next_generation(
    space: Space,
    seed: int,
    members: Sequence[Member],
    explore: Explore = perturb,
    *,
    quantile: float = QUANTILE,
    higher_is_better: bool = False,
) -> list[Member]:
    """The generation after one that has ended, by number, still without values of the measure.

    The worst `quantile` of the members, at least one of two and at most half, and all that do not live take over
    the state of one of the best `quantile`, drawn evenly, and explore. The others continue unchanged. Raises
    UserError where no member lives.
    """
    ranked = rank(members, higher_is_better=higher_is_better)
    count = min(max(1, int(quantile * len(ranked) + 1e-9)), len(ranked) // 2)
    living = [member for member in ranked if member.lives]
    if not living:
        raise UserError(
            f"the population: none of its {len(ranked)} members came through generation {ranked[0].generation}: all "
            f"diverged or failed; search lower learning rates, or look at their runs"
        )
    best = living[: max(1, count)]
    replaced = {member.number for member in ranked[len(ranked) - count :]} | {
        member.number for member in ranked if not member.lives
    }
    generation = ranked[0].generation + 1
    following = [
        replace(member, generation=generation, parent=member.number, value=None)
        for member in sorted(living, key=lambda member: member.number)
        if member.number not in replaced
    ]
    for number in sorted(replaced):
        parent = _draws(seed, generation, number, "parent").choice(best)
        child = Member(number, generation, parent.values, parent.number)
        following.append(replace(child, values=explore(space, seed, child, tuple(following))))
    return sorted(following, key=lambda member: member.number)


def rank(members: Sequence[Member], *, higher_is_better: bool = False) -> list[Member]:
    """Members from best to worst, of equal ones the lower number first; failed members come last."""
    sign = -1 if higher_is_better else 1

    def key(member: Member) -> tuple[bool, float, int]:
        if member.value is None or not math.isfinite(member.value):
            return True, 0.0, member.number
        return False, sign * member.value, member.number

    return sorted(members, key=key)


def _draws(seed: int, generation: int, number: int, name: str) -> Random:
    return Random(f"{seed}/{generation}/{number}/{name}")
