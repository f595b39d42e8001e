"""`search.json`: a search's plan and its trials, as they stand."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

import distgan
from distgan.bounds import MOST_RECORD_BYTES, parse_json
from distgan.data.storage import NotFoundError, Storage
from distgan.errors import UserError
from distgan.search.distributions import Distribution
from distgan.search.expressions import Product
from distgan.search.plan import Limits, Plan
from distgan.search.space import Space
from distgan.search.trials import Trial
from distgan.search.values import LARGEST, is_number

FILE = "search.json"
TRIALS = "trials"
_FORMAT: Literal["distgan-search-1"] = "distgan-search-1"

# Why a session of a search ended.
SearchEnd = Literal["all trials ended", "target", "budget", "interrupted"]


class SearchRecord(BaseModel):
    """A search.

    Attributes:
        limits: of the last session.
        ended: how the last session ended; None while it goes on, or where it was killed.
        trials: by number.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["distgan-search-1"] = _FORMAT
    distgan: str = distgan.__version__
    name: str
    plan: Plan
    limits: Limits
    ended: SearchEnd | None = None
    trials: list[Trial] = []

    @model_validator(mode="after")
    def _trials_fit(self) -> SearchRecord:
        """Each trial has its place as its number, and what it repeats or goes on from is an earlier one."""
        for place, trial in enumerate(self.trials):
            earlier = [one for one in (trial.repeats, trial.parent) if one is not None]
            if trial.number != place or not all(0 <= one < place for one in earlier):
                raise ValueError(f"trial {place} does not belong where it stands")
        return self

    def save(self, search: Storage) -> None:
        """Writes it into the search's folder."""
        search.write_bytes(FILE, self.model_dump_json(indent=1).encode())


def read_record(search: Storage) -> SearchRecord | None:
    """The record in a search's folder; None where there is none. Raises UserError for a damaged one."""
    try:
        content = search.read_bytes(FILE, most=MOST_RECORD_BYTES)
    except NotFoundError:
        return None
    try:
        record = SearchRecord.model_validate(parse_json(content))
        _check_values(record)
        return record
    except (ValueError, UserError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise UserError(
            f"{search.url}/{FILE}: not a search that distgan {distgan.__version__} can read ({reason:.200}); "
            f"use the version that wrote it, or start a new search with another --name"
        ) from None


def _check_values(record: SearchRecord) -> None:
    """Raises ValueError where a trial has values that no draw of the space gives, UserError for what is no space."""
    space = Space.parse(record.plan.space)
    for trial in record.trials:
        for key, entry in space.entries.items():
            if key not in trial.overrides:
                continue
            value, name, drawn = trial.overrides[key], entry.free_name(key), entry.distribution
            fits = drawn is None or (name in trial.draw and drawn.contains(trial.draw[name]))
            if isinstance(entry.expression, Distribution):
                fits = fits and entry.expression.contains(value)
            elif isinstance(entry.expression, Product):
                fits = fits and is_number(value) and abs(value) <= LARGEST
            if not fits:
                raise ValueError(f"trial {trial.number}: {key} has a value that is not in the space")


def require_record(url: str) -> SearchRecord:
    """The record of the search at a folder or URL. Raises UserError where there is none."""
    record = read_record(Storage.open(url))
    if record is None:
        raise UserError(f"{url}: no search there: it has no {FILE}; give the folder or URL of one (storage/name)")
    return record


def trial_url(search: Storage, trial: Trial) -> str:
    """The folder of a trial's run."""
    return search.child(TRIALS).child(trial.name).url
