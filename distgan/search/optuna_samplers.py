"""Samplers that learn from earlier trials, by Optuna."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from distgan.search.expressions import Choice, Distribution, Value, same
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Range
from distgan.search.record import Trial
from distgan.search.samplers import Draw, Suggestion
from distgan.search.space import Space

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


def optuna_distributions(space: Space) -> dict[str, BaseDistribution]:
    """The distributions of everything that is drawn; of a choice, the indices of its values."""
    return {name: optuna_distribution(drawn) for name, drawn in space.free.items()}


def to_optuna(drawn: Distribution, value: Any) -> Any:
    """A drawn value as Optuna keeps it."""
    if not isinstance(drawn, Choice):
        return value
    return next(place for place, one in enumerate(drawn.values) if same(one, value))


def from_optuna(drawn: Distribution, value: Any) -> Value:
    """The inverse of `to_optuna`; a multiple of a step is an exact one."""
    return drawn.values[value] if isinstance(drawn, Choice) else drawn.nearest(value)


def optuna_distribution(drawn: Distribution) -> BaseDistribution:
    """The distribution of one draw; of a choice, of the indices of its values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(drawn, Choice):
        return CategoricalDistribution(range(len(drawn.values)))
    assert isinstance(drawn, Range)
    if isinstance(drawn, RandInt):
        return IntDistribution(drawn.low, drawn.high, log=isinstance(drawn, LogRandInt))
    if isinstance(drawn, QUniform):
        return FloatDistribution(drawn.low, drawn.high, step=drawn.step)
    return FloatDistribution(drawn.low, drawn.high, log=isinstance(drawn, LogUniform))


# Trials that are drawn at random before there is a model of them.
STARTUP_TRIALS = 10


class OptunaSampler:
    """TPE (Bergstra et al. 2011) or Bayesian optimization with a Gaussian process.

    TPE ranks stopped trials below those that went further, as Optuna does with pruned ones. The Gaussian process takes
    their best value as it is.

    Args:
        first: the first draw, if given.
        earlier: trials of an earlier search, with their draws in this space.
    """

    def __init__(
        self,
        kind: Literal["tpe", "bayes"],
        space: Space,
        seed: int,
        count: int,
        *,
        higher_is_better: bool,
        first: dict[str, Value] | None = None,
        earlier: Sequence[Trial] = (),
    ) -> None:
        self._kind, self._space, self._seed, self._count = kind, space, seed, count
        self._higher_is_better, self._first, self._earlier = higher_is_better, first, earlier

    def next(self, trials: Sequence[Trial]) -> Suggestion:
        number = len(trials)
        if number >= self._count:
            return "done"
        if number == 0 and self._first is not None:
            return Draw(self._first)
        known = [*self._earlier, *trials]
        if sum(trial.ended for trial in known) < STARTUP_TRIALS:
            return Draw(self._space.sample(self._seed, number))
        distributions = optuna_distributions(self._space)
        study = self._study(known, number)
        with _one_thread():
            asked = study.ask(distributions)
        return Draw({name: from_optuna(drawn, asked.params[name]) for name, drawn in self._space.free.items()})

    def _study(self, trials: Sequence[Trial], number: int) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}/{number}".encode()).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler: optuna.samplers.BaseSampler
            if self._kind == "tpe":
                sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, constant_liar=True)
            else:
                sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=0)
            study = optuna.create_study(sampler=sampler, direction="maximize" if self._higher_is_better else "minimize")
        for trial in trials:
            study.add_trial(self._optuna_trial(trial))
        return study

    def _optuna_trial(self, trial: Trial) -> optuna.trial.FrozenTrial:
        import optuna

        State = optuna.trial.TrialState  # noqa: N806
        best = trial.best(self._higher_is_better)
        completes = trial.state in {"budget", "time", "plateau", "target"}
        state = State.RUNNING
        if trial.ended:
            state = State.COMPLETE if best is not None and (completes or self._kind == "bayes") else State.PRUNED
        return optuna.create_trial(
            state=state,
            params={name: to_optuna(drawn, trial.draw[name]) for name, drawn in self._space.free.items()},
            distributions=optuna_distributions(self._space),
            value=best[1] if best is not None and state == State.COMPLETE else None,
            intermediate_values={round(kimg * 1000): value for kimg, value in trial.curve},
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch uses one thread inside: matrices are small, and another number of threads would change the draws."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
