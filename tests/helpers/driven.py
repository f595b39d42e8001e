"""Searches without runs or Ray: proposals driven by an objective that is a function, an object in an actor's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from distgan.search.record import Trial, TrialState
from distgan.search.samplers import Draw, Sampler
from distgan.search.space import Space

# What becomes of a trial: its last evaluation, if any, and how it ended.
Objective = Callable[[Trial], tuple[float | None, TrialState]]

SEED = 17


def begin(draw: Draw, number: int, space: Space) -> Trial:
    """The trial of a draw, as a book begins it and a record gives it back."""
    trial = Trial(
        number=number,
        draw=dict(draw.values),
        overrides=space.overrides(draw.values),
        seed=SEED + draw.seed_offset,
        repeats=draw.repeats,
        generation=draw.generation,
        parent=draw.parent,
        state="begun",
    )
    return Trial.model_validate_json(trial.model_dump_json())


def end(trial: Trial, objective: Objective, kimg: float = 240.0) -> Trial:
    """The trial as it has ended."""
    value, state = objective(trial)
    return trial.model_copy(update={"curve": [] if value is None else [(kimg, value)], "state": state})


def drive(proposals: Sampler, space: Space, objective: Objective, trials: Sequence[Trial] = ()) -> list[Trial]:
    """All trials to the end, each ended before the next is drawn."""
    found = list(trials)
    while isinstance(draw := proposals.next(found), Draw):
        found.append(end(begin(draw, len(found), space), objective))
    assert draw == "done"
    return found


class Actor:
    """An object whose methods are called as an actor's are."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.of, name))
