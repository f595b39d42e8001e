"""Trials of a search as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distgan.config.load import flatten
from distgan.search.expressions import is_number, number_text, value_text
from distgan.search.plan import SearchPlan
from distgan.search.record import SearchRecord, Trial
from distgan.search.space import Space
from distgan.tracking import formatting

# Where a trial leaves a key as the configuration has it, as its condition is false.
UNSET = "–"  # noqa: RUF001


def searched(plan: SearchPlan) -> dict[str, str]:
    """The keys that trials differ in, each with its short name."""
    return short_names(Space.parse(plan.space).varying, flatten(plan.config))


def short_names(keys: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """The shortest ending of each key that no other known key has: `generator.lr`, `gp_weight`."""
    found = {}
    every = {*keys, *known}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [f".{other}" for other in every if other != key]
        found[key] = next((end for end in endings if not any(one.endswith(f".{end}") for one in others)), key)
    return found


def draw_name(name: str, names: Mapping[str, str]) -> str:
    """The short name of a draw of `Space.free`."""
    key = name.removesuffix(".factor")
    return names.get(name) or f"{names.get(key, key)} (factor)"


def value_shown(value: Any) -> str:
    """A value with at most three digits: `0.000123`, `1.2e-5`; integers whole."""
    if is_number(value):
        return number_text(value if isinstance(value, int) else float(f"{value:.3g}"))
    return value_text(tuple(value) if isinstance(value, list) else value)


def key_shown(trial: Trial, key: str) -> str:
    """The trial's value of a searched key."""
    return value_shown(trial.overrides[key]) if key in trial.overrides else UNSET


def values_shown(trial: Trial, names: Mapping[str, str]) -> str:
    """All values of the trial's searched keys: `generator.lr=0.000123, critic_steps=3`."""
    return ", ".join(f"{short}={key_shown(trial, key)}" for key, short in names.items() if key in trial.overrides)


def trial_shown(trial: Trial) -> str:
    """A trial's number, and the trial that it repeats or whose state it took over."""
    if trial.repeats is not None:
        return f"{trial.number} of {trial.repeats}"
    return str(trial.number) if trial.parent is None else f"{trial.number} from {trial.parent}"


def state_shown(trial: Trial, record: SearchRecord) -> str:
    """A trial's state: `running`, or how and where it ended: `stopped at 12 kimg`."""
    if trial.state == "begun":
        return "running" if record.ended is None else "interrupted"
    if trial.state in ("waiting", "budget"):
        return {"waiting": "waiting", "budget": "done"}[trial.state]
    ended = {"time": "out of time", "target": "target reached"}.get(trial.state, trial.state)
    return f"{ended} at {formatting.kimg_count(trial.kimg)} kimg" if trial.curve else ended


def is_ill(trial: Trial) -> bool:
    """Whether it failed or ended in a training failure."""
    return trial.ended and trial.state not in ("budget", "time", "plateau", "target", "stopped")


def direction(plan: SearchPlan) -> str:
    """`lower is better` or `higher is better`."""
    return f"{'higher' if plan.higher_is_better else 'lower'} is better"


def best_shown(trial: Trial, higher_is_better: bool) -> str:
    """`1,362 at 136 kimg`; empty before the first evaluation."""
    best = trial.best(higher_is_better)
    return "" if best is None else f"{formatting.number(best[1])} at {formatting.kimg_count(best[0])} kimg"


def failure(trial: Trial) -> str:
    """The error of a failed trial, in one line."""
    return " ".join(trial.note.split())
