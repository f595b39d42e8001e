"""Watches over a run: named states of ill health, when they begin and when they end.

Every update counts, in windows of `WINDOW` of them that the workers close together, and every evaluation. So
the states depend neither on the rows of metrics nor on where a session was stopped: what is kept here goes into
the checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from distgan.health import symptoms
from distgan.health.states import State
from distgan.health.symptoms import Means, Signs

# Updates of the generator a window; all workers meet after each.
WINDOW = 50
# In the first updates much is extreme that means nothing: they are not judged.
WARM_UP = 200

_WATCHED = (*symptoms.SIZES, "loss/adversarial", "accuracy/real", "accuracy/fake")
# After how many windows, or evaluations, in a row that speak against what is the case a state begins or ends.
_WINDOWS: dict[State, int] = {"discriminator overpowers": 4, "dead generator": 4, "diverged": 2}
_EVALUATIONS: dict[State, int] = {"mode collapse": 2}

# No float is larger than the exponential of it.
_LARGEST_LOG = 709.0
Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass
class Spell:
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
    streaks: dict[State, Count] = field(default_factory=dict)
    spells: dict[State, Spell] = field(default_factory=dict)

    @property
    def is_possible(self) -> bool:
        """Whether these numbers can be those of a run: its means are taken of them."""
        return all(0 <= total <= _LARGEST_LOG * self.windows for total in self.logs.values())

    @property
    def ongoing(self) -> list[State]:
        """The states that the run is in."""
        return [state for state, spell in self.spells.items() if spell.until is None]

    def trained(
        self, terms: Sequence[Mapping[str, float]], step: int, images: int, chance_loss: float | None
    ) -> list[State]:
        """Takes the terms of the updates up to `step`, `images` real images into the run; the states that begin.

        A window ends with a `step` that is a multiple of `WINDOW`: the workers meet there. `chance_loss` is the
        objective's.
        """
        for row in terms:
            # An update without a penalty may have no such term: all of its loss is adversarial.
            whole = {"loss/adversarial": row["loss/discriminator"], **row}
            for name in _WATCHED:
                if name in whole:
                    self.sums[name] = self.sums.get(name, 0.0) + whole[name]
        self.updates += len(terms)
        if step % WINDOW or not self.updates:
            return []
        means = {name: total / self.updates for name, total in self.sums.items()}
        self.sums, self.updates = {}, 0
        signs = self._signs(means, chance_loss) if step > WARM_UP else {}
        self.largest_gradient = max(self.largest_gradient, means[symptoms.GRADIENT])
        if "diverged" not in signs:
            for name in symptoms.SIZES:
                self.logs[name] = self.logs.get(name, 0.0) + symptoms.log_size(means, name)
            self.windows += 1
        return self._judge(signs, _WINDOWS, step, images)

    def evaluated(self, diversity: float, step: int, images: int) -> list[State]:
        """Takes the diversity of the generator of a `step`; the states that begin.

        While the discriminator overpowers, samples that are alike are its doing, and no collapse.
        """
        if step == 0:
            return []
        widest, self.widest = self.widest, max(self.widest, diversity)
        if step <= WARM_UP or "discriminator overpowers" in self.ongoing:
            return []
        return self._judge(symptoms.alike(diversity, widest), _EVALUATIONS, step, images)

    def _signs(self, means: Means, chance_loss: float | None) -> Signs:
        typical = {name: math.exp(total / self.windows) for name, total in self.logs.items()}
        return {
            **symptoms.discriminator_overpowers(means, chance_loss, self.largest_gradient),
            **symptoms.no_gradient(means, self.largest_gradient),
            **symptoms.exploded(means, typical),
        }

    def _judge(self, signs: Signs, patience: Mapping[State, int], step: int, images: int) -> list[State]:
        begun = []
        for state, times in patience.items():
            changes = (state in signs) != (state in self.ongoing)
            self.streaks[state] = self.streaks.get(state, 0) + 1 if changes else 0
            if self.streaks[state] < times:
                continue
            self.streaks[state] = 0
            if state not in signs:
                self.spells[state].until = images
                continue
            begun.append(state)
            if state in self.spells:
                spell = self.spells[state]
                spell.seen, spell.times, spell.until = signs[state], spell.times + 1, None
            else:
                self.spells[state] = Spell(step, images, signs[state])
        return begun
