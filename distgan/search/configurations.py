"""The configuration of a trial, from the record of a search."""

from __future__ import annotations

from pydantic import ValidationError

from distgan.config.components import own_names
from distgan.config.load import build_config
from distgan.config.overrides import overridden_tree
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.search.plan import Plan
from distgan.search.trials import Trial


def trial_config(plan: Plan, trial: Trial, where: str) -> Config:
    """The search's configuration with the trial's values and its seed; `where` names the record in errors.

    No module of a user is imported. Raises UserError for what is no configuration, as of a damaged record.
    """
    where = f"{where}: trial {trial.number}"
    tree = overridden_tree(plan.config, {**trial.overrides, "seed": trial.seed})
    if not own_names(tree):
        return build_config(tree, where)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: no configuration: {error.errors()[0]['msg']}") from None
