"""The trials of a search: what each is, how far it came and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from distgan.health.states import State as Illness

# How a trial ended: as a run does, or stopped by the search's scheduler, or by a mistake.
Ended = Literal["budget", "time", "plateau", "target", "stopped", "failed"] | Illness
# `begun` ones are running, or go on with the next session of the search.
TrialState = Literal["waiting", "begun"] | Ended

# So that sums, ratios and the ends of axes are numbers too.
_MOST_VALUE, _MOST_AMOUNT = 1e300, 1e12
_Amount = Annotated[float, Field(ge=0, le=_MOST_AMOUNT, allow_inf_nan=False)]
_Value = Annotated[float, Field(ge=-_MOST_VALUE, le=_MOST_VALUE, allow_inf_nan=False)]


class Trial(BaseModel):
    """A run with values of its own.

    Attributes:
        number: its place in the search, from 0.
        draw: what was drawn, by the names of `Space.free`.
        overrides: the values of its configuration keys that follow from the draw.
        seed: of its configuration.
        repeats: number of the trial that it repeats with another seed.
        generation, parent: in population-based training, and the trial of the generation before whose state it takes
            over.
        note: of a failed one, why.
        curve: (kimg, value of the search's measure) of its evaluations, by kimg; `kimg` counts real images that its
            critic has consumed.
        seconds: wall-clock time that it ran, without stretches that were killed.
    """

    model_config = ConfigDict(extra="forbid")

    number: int
    draw: dict[str, Any]
    overrides: dict[str, Any]
    seed: int
    repeats: int | None = None
    generation: Annotated[int, Field(ge=0)] = 0
    parent: int | None = None
    state: TrialState = "waiting"
    note: str = ""
    curve: list[tuple[_Amount, _Value]] = []
    seconds: _Amount = 0.0

    @property
    def name(self) -> str:
        """Of its run; names sort by number."""
        return run_name(self.number)

    @property
    def ended(self) -> bool:
        """Whether it will not go on in another session."""
        return self.state not in ("waiting", "begun")

    @property
    def kimg(self) -> float:
        """Real images that its critic had consumed at its last evaluation, in thousands."""
        return self.curve[-1][0] if self.curve else 0.0

    @property
    def latest(self) -> float | None:
        """The value of its last evaluation."""
        return self.curve[-1][1] if self.curve else None

    def best(self, higher_is_better: bool) -> tuple[float, float] | None:
        """(kimg, value) of its best evaluation, of equal ones the first; None without any."""
        sign = -1 if higher_is_better else 1
        return min(self.curve, key=lambda point: sign * point[1], default=None)

    def told(self, kimg: float, value: float) -> None:
        """Takes down an evaluation, which replaces what was known of that moment.

        One without a number, or with one beyond use, is none.
        """
        if not abs(value) <= _MOST_VALUE:
            return
        known = dict(self.curve)
        known[kimg] = value
        self.curve = sorted(known.items())


def run_name(number: int) -> str:
    """What the run of a trial is called."""
    return f"{number:04d}"


def kimg_of(trials: Sequence[Trial]) -> float:
    """What was trained in all: a trial that took over another's state did not train that one's images again."""
    by_number = {trial.number: trial for trial in trials}
    begun = {trial.number: by_number[trial.parent].kimg if trial.parent is not None else 0.0 for trial in trials}
    return sum(max(0.0, trial.kimg - begun[trial.number]) for trial in trials)
