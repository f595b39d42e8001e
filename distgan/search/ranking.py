"""The ranking of a search's trials, and the start of a run from the best one."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from distgan.config.load import dump_config, parse_config
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.search.plan import SearchPlan
from distgan.search.record import FILE, SearchRecord, Trial, require_record, trial_config, trial_url
from distgan.storage.storage import Storage
from distgan.training.run_spec import check_addresses, keys_not_given
from distgan.training.starting_point import find_checkpoint


@dataclass(frozen=True)
class Ranked:
    """A trial with its repetitions.

    Attributes:
        value: mean of the best values of its runs, which differ in their seed.
        std: their standard deviation (n - 1); None for a single run.
        runs: how many were measured.
        trial: the first of them.
        best_run: the one with the best value, whose checkpoint is the winner's.
    """

    value: float
    std: float | None
    runs: int
    trial: Trial
    best_run: Trial


def leaderboard(plan: SearchPlan, trials: Sequence[Trial]) -> list[Ranked]:
    """Trials with a value, the best first: those with the most runs before the others, as luck matters less in them.

    A repetition counts when it has ended: before, its value is that of a shorter run.
    """
    repetitions: defaultdict[int | None, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.ended:
            repetitions[trial.repeats].append(trial)
    found = []
    for trial in trials:
        if trial.repeats is not None:
            continue
        runs = [trial, *repetitions[trial.number]]
        measured = [(run, best[1]) for run in runs if (best := run.best(plan.higher_is_better)) is not None]
        if not measured:
            continue
        values = [value for _, value in measured]
        sign = -1 if plan.higher_is_better else 1
        found.append(
            Ranked(
                value=statistics.fmean(values),
                std=statistics.stdev(values) if len(values) > 1 else None,
                runs=len(values),
                trial=trial,
                best_run=min(measured, key=lambda pair: sign * pair[1])[0],
            )
        )
    sign = -1 if plan.higher_is_better else 1
    return sorted(found, key=lambda one: (-one.runs, sign * one.value, one.trial.number))


def reached(record: SearchRecord) -> bool:
    """Whether an ended trial is as good as the target, which may have changed since it ended."""
    target, higher_is_better = record.limits.target, record.plan.higher_is_better
    if target is None:
        return False
    values = [best[1] for trial in record.trials if trial.ended and (best := trial.best(higher_is_better))]
    return any(value >= target if higher_is_better else value <= target for value in values)


@dataclass(frozen=True)
class Winner:
    """The start of a new run: the winner's configuration, and the URL of its best checkpoint."""

    config: Config
    checkpoint: str
    name: str


def find_winner(url: str, overrides: Sequence[str]) -> Winner:
    """The best trial of the search at a folder or URL, its configuration with `KEY=VALUE` overrides.

    Without the search's target: a winner that has reached it would end where it begins.

    Raises UserError where there is no search, or no trial of it has a value or a whole checkpoint, and for addresses
    on other hosts than the search's that only its record names.
    """
    record, search = require_record(url), Storage.open(url)
    ranked = leaderboard(record.plan, record.trials)
    if not ranked:
        raise UserError(f"--from-trial {url}: no trial of this search has a value yet")
    run = ranked[0].best_run
    where = f"{search.url}/{FILE}"
    config = parse_config(
        dump_config(trial_config(record.plan, run, where)), where, ["evaluation.target=null", *overrides]
    )
    check_addresses(config, search.url, keys_not_given(overrides), "give them as KEY=VALUE")
    return Winner(config, find_checkpoint(trial_url(search, run)).url, f"{record.name}-{run.name}")
