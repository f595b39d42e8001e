"""The importance of each searched key for the value of a trial."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distgan.search.optuna_samplers import optuna_distributions, to_optuna
from distgan.search.plan import SearchPlan
from distgan.search.ranking import leaderboard
from distgan.search.record import Trial
from distgan.search.space import Space

# Fewer trials say nothing.
FEWEST = 10

# Good trials: a tenth of all, but so many at least as far as that leaves half of them for the others.
_GOOD_SHARE = 0.1

_FEWEST_GOOD = 5


@dataclass(frozen=True)
class Importance:
    """The importance of one draw.

    Attributes:
        name: the draw's name in `Space.free`.
        share: its part of the importance of all draws, from 0 to 1.
        trials: number of trials that used the draw; in the others its condition was false.
    """

    name: str
    share: float
    trials: int


def importance(plan: SearchPlan, trials: Sequence[Trial]) -> list[Importance] | None:
    """The draws, the most important first; None with fewer than 10 trials, or where nothing made a difference.

    By PED-ANOVA (Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces"), as Optuna has it: how far the values of the good trials are spread otherwise than those of all. A
    draw under a condition counts by the trials that used it, and by how many of the good ones those are.

    A trial counts by its best value, with repetitions by their mean, however far it came; a diverged one as the worst
    of all, others without a value not at all. In population-based training each is compared with its own generation.
    """
    values = _lower_is_better(plan, trials)
    if len(values) < FEWEST:
        return None
    space = Space.parse(plan.space)
    counted = [trial for trial in trials if trial.number in values]
    used = {trial.number: used_draws(space, trial) for trial in counted}
    shares = _shares(space, counted, values, used)
    total = sum(shares.values())
    if not total > 0:
        return None
    found = [
        Importance(name, shares.get(name, 0.0) / total, sum(name in names for names in used.values()))
        for name in space.free
    ]
    return sorted(found, key=lambda one: -one.share)


def _lower_is_better(plan: SearchPlan, trials: Sequence[Trial]) -> dict[int, float]:
    """The score of each trial that counts, by its number."""
    sign = -1 if plan.higher_is_better else 1
    values = {ranked.trial.number: sign * ranked.value for ranked in leaderboard(plan, trials)}
    if not values:
        return {}
    worst = max(values.values())
    values |= {trial.number: worst for trial in trials if trial.state == "diverged" and trial.repeats is None}
    return _generation_shares(trials, values) if plan.is_population else values


def _generation_shares(trials: Sequence[Trial], values: Mapping[int, float]) -> dict[int, float]:
    """For each member the share of its generation that is better: later generations have trained longer."""
    generations: defaultdict[int, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.number in values:
            generations[trial.generation].append(values[trial.number])
    for generation in generations.values():
        generation.sort()
    return {
        trial.number: bisect_left(generation, values[trial.number]) / len(generation)
        for trial in trials
        if trial.number in values
        for generation in [generations[trial.generation]]
    }


def used_draws(space: Space, trial: Trial) -> set[str]:
    """The draws that the trial's values depend on, without those of keys that it does not set."""
    return {
        entry.free_name(key)
        for key, entry in space.entries.items()
        if entry.distribution is not None and key in trial.overrides
    }


def _shares(
    space: Space, trials: Sequence[Trial], values: Mapping[int, float], used: Mapping[int, set[str]]
) -> dict[str, float]:
    """Importances, not yet normalized."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            distributions = optuna_distributions(space)
            study = optuna.create_study(direction="minimize")
            for trial in trials:
                names = used[trial.number]
                study.add_trial(
                    optuna.create_trial(
                        params={name: to_optuna(space.free[name], trial.draw[name]) for name in names},
                        distributions={name: distributions[name] for name in names},
                        value=values[trial.number],
                    )
                )
            good = max(_GOOD_SHARE, min(0.5, _FEWEST_GOOD / len(trials)))
            return PedAnovaImportanceEvaluator(target_quantile=good).evaluate(study)
    finally:
        optuna.logging.set_verbosity(verbosity)
