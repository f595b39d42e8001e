"""A space and its draws as Optuna has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distgan.search.distributions import Choice, Distribution
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Range
from distgan.search.space import Space
from distgan.search.values import Value, same

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def optuna_distributions(space: Space) -> dict[str, BaseDistribution]:
    """Those of everything that is drawn; of a choice, the places of its values."""
    return {name: _optuna_distribution(drawn) for name, drawn in space.free.items()}


def to_optuna(drawn: Distribution, value: Any) -> Any:
    """A drawn value as it stands in an Optuna trial."""
    if not isinstance(drawn, Choice):
        return value
    return next(place for place, one in enumerate(drawn.values) if same(one, value))


def from_optuna(drawn: Distribution, value: Any) -> Value:
    """The inverse of `to_optuna`; a multiple of a step is an exact one."""
    return drawn.values[value] if isinstance(drawn, Choice) else drawn.nearest(value)


def _optuna_distribution(drawn: Distribution) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(drawn, Choice):
        return CategoricalDistribution(range(len(drawn.values)))
    assert isinstance(drawn, Range)
    if isinstance(drawn, RandInt):
        return IntDistribution(drawn.low, drawn.high, log=isinstance(drawn, LogRandInt))
    if isinstance(drawn, QUniform):
        return FloatDistribution(drawn.low, drawn.high, step=drawn.step)
    return FloatDistribution(drawn.low, drawn.high, log=isinstance(drawn, LogUniform))
