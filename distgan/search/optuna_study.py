"""A search as a study in an Optuna storage, for optuna-dashboard and Optuna's own tools."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from distgan.errors import UserError
from distgan.search.expressions import Choice, Distribution, Scalar, value_text
from distgan.search.importance import used_draws
from distgan.search.optuna_samplers import optuna_distribution
from distgan.search.record import SearchRecord, Trial, require_record
from distgan.search.space import Space
from distgan.text import without_credentials

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

# They have a value, if they were evaluated at all.
_COMPLETE = {"budget", "time", "plateau", "target"}


def export_study(url: str, storage: str) -> tuple[str, int]:
    """Writes the search at a folder or URL as a new study; returns its name and number of trials.

    Parameters are what the search draws: keys, and `KEY.factor` of products; a trial has those that its values depend
    on. The steps of intermediate values are real images. What else is known of a trial is in its user attributes.

    Args:
        storage: as SQLAlchemy names it: `sqlite:///search.db`.

    Raises UserError where there is no search, for a storage that cannot be used, and for one that has the study.
    """
    record = require_record(url)
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        trials = [_trial(record, trial) for trial in record.trials]
        study = optuna.create_study(
            study_name=record.name,
            storage=storage,
            direction="maximize" if record.plan.higher_is_better else "minimize",
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([record.plan.metric])
            study.set_user_attr("distgan", record.distgan)
            study.set_user_attr("search", without_credentials(url))
            study.add_trials(trials)
        except BaseException:
            optuna.delete_study(study_name=record.name, storage=storage)
            raise
    except optuna.exceptions.DuplicatedStudyError:
        raise UserError(
            f"--to-optuna: {without_credentials(storage)} has a study {record.name!r:.80}; name another storage, or "
            f"delete the study with `optuna delete-study`"
        ) from None
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError, ValueError) as error:
        reason = without_credentials(str(error).partition("\n")[0])
        raise UserError(
            f"--to-optuna {without_credentials(storage)}: {reason:.200}; give a storage of Optuna, as sqlite:///search.db"
        ) from None
    return record.name, len(trials)


def _trial(record: SearchRecord, trial: Trial) -> optuna.trial.FrozenTrial:
    import optuna

    space = Space.parse(record.plan.space)
    names = [name for name in space.free if name in used_draws(space, trial)]
    best = trial.best(record.plan.higher_is_better)
    state = _state(trial)
    return optuna.create_trial(
        state=state,
        value=best[1] if best is not None and state == optuna.trial.TrialState.COMPLETE else None,
        params={name: _value(space.free[name], trial.draw[name]) for name in names},
        distributions={name: _distribution(space.free[name]) for name in names},
        intermediate_values={round(1000 * kimg): value for kimg, value in trial.curve},
        user_attrs=_attributes(trial, best),
    )


def _state(trial: Trial) -> optuna.trial.TrialState:
    from optuna.trial import TrialState

    if not trial.ended:
        return TrialState.WAITING if trial.state == "waiting" else TrialState.RUNNING
    if trial.state in _COMPLETE and trial.curve:
        return TrialState.COMPLETE
    return TrialState.PRUNED if trial.state == "stopped" else TrialState.FAIL


def _attributes(trial: Trial, best: tuple[float, float] | None) -> dict[str, Any]:
    known: dict[str, Any] = {"run": trial.name, "state": trial.state, "seed": trial.seed, "seconds": trial.seconds}
    if best is not None:
        known |= {"best": best[1], "best_kimg": best[0]}
    more = {"repeats": trial.repeats, "parent": trial.parent, "error": trial.note or None}
    known |= {name: value for name, value in more.items() if value is not None}
    return known | trial.overrides


def _distribution(drawn: Distribution) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    if isinstance(drawn, Choice):
        return CategoricalDistribution([_value(drawn, value) for value in drawn.values])
    return optuna_distribution(drawn)


def _value(drawn: Distribution, value: Any) -> Scalar:
    """A drawn value as a dashboard shows it; lists as text."""
    return value_text(tuple(value)) if isinstance(value, list | tuple) else value
