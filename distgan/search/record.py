"""`search.json`: a search's plan and its trials so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import distgan
from distgan.bounds import MOST_RECORD_BYTES, parse_json
from distgan.config.load import build_config, overridden_tree
from distgan.config.plugins import custom_names
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.search.expressions import LARGEST, Distribution, Product, is_number
from distgan.search.plan import SearchLimits, SearchPlan
from distgan.search.space import Space
from distgan.storage.storage import NotFoundError, Storage
from distgan.training.health import FailureMode

# How a trial ended: as a run does, stopped by the search's scheduler, or by an error.
EndState = Literal["budget", "time", "plateau", "target", "stopped", "failed"] | FailureMode

# `begun` trials are running, or resume with the next session of the search.
TrialState = Literal["waiting", "begun"] | EndState

# So that sums, ratios and the ends of axes are numbers too.
_MOST_VALUE, _MOST_AMOUNT = 1e300, 1e12

_Amount = Annotated[float, Field(ge=0, le=_MOST_AMOUNT, allow_inf_nan=False)]

_Value = Annotated[float, Field(ge=-_MOST_VALUE, le=_MOST_VALUE, allow_inf_nan=False)]


class Trial(BaseModel):
    """A trial: a run with its own values of the searched keys.

    Attributes:
        number: its index in the search, from 0.
        draw: the drawn values, by the names of `Space.free`.
        overrides: the resulting values of configuration keys.
        seed: its configuration's seed.
        repeats: number of the trial that it repeats with another seed.
        generation, parent: in population-based training, and the trial of the generation before whose state it takes
            over.
        note: the reason why it failed.
        curve: (kimg, value of the search's measure) of its evaluations, by kimg; `kimg` counts real images that its
            discriminator has consumed.
        seconds: wall-clock time that it ran, without stretches that were killed.
        start_seconds: from its hand-out to its first step, over all sessions; 0 where it is not known.
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
    start_seconds: _Amount = 0.0

    @property
    def name(self) -> str:
        """The name of its run; names sort by number."""
        return run_name(self.number)

    @property
    def ended(self) -> bool:
        """Whether no later session resumes it."""
        return self.state not in ("waiting", "begun")

    @property
    def kimg(self) -> float:
        """Real images that its discriminator had consumed at its last evaluation, in thousands."""
        return self.curve[-1][0] if self.curve else 0.0

    @property
    def latest(self) -> float | None:
        """The value of its last evaluation."""
        return self.curve[-1][1] if self.curve else None

    def best(self, higher_is_better: bool) -> tuple[float, float] | None:
        """(kimg, value) of its best evaluation, of equal ones the first; None without any."""
        sign = -1 if higher_is_better else 1
        return min(self.curve, key=lambda point: sign * point[1], default=None)

    def add_evaluation(self, kimg: float, value: float) -> None:
        """Adds an evaluation; it replaces an earlier one at the same kimg.

        A value that is not finite, or beyond 1e300, is left out.
        """
        if not abs(value) <= _MOST_VALUE:
            return
        known = dict(self.curve)
        known[kimg] = value
        self.curve = sorted(known.items())


def run_name(number: int) -> str:
    """The name of a trial's run."""
    return f"{number:04d}"


def kimg_of(trials: Sequence[Trial]) -> float:
    """Training of all trials together; a state that was taken over counts once."""
    by_number = {trial.number: trial for trial in trials}
    begun = {trial.number: by_number[trial.parent].kimg if trial.parent is not None else 0.0 for trial in trials}
    return sum(max(0.0, trial.kimg - begun[trial.number]) for trial in trials)


FILE = "search.json"

TRIALS = "trials"

_FORMAT: Literal["distgan-search-1"] = "distgan-search-1"

# Why a session of a search ended.
SearchEnd = Literal["all trials ended", "target", "budget", "interrupted"]


class SearchRecord(BaseModel):
    """The record of a search.

    Attributes:
        limits: limits of the last session.
        ended: how the last session ended; None while it runs, or where it was killed.
        trials: all trials so far, by number.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["distgan-search-1"] = _FORMAT
    distgan: str = distgan.__version__
    name: str
    plan: SearchPlan
    limits: SearchLimits
    ended: SearchEnd | None = None
    trials: list[Trial] = []

    @model_validator(mode="after")
    def _trials_fit(self) -> SearchRecord:
        """A trial's number is its index, and the trial that it repeats or resumes is an earlier one."""
        for place, trial in enumerate(self.trials):
            earlier = [one for one in (trial.repeats, trial.parent) if one is not None]
            if trial.number != place or not all(0 <= one < place for one in earlier):
                raise ValueError(f"trial {place} is at the wrong place")
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
    """Raises ValueError for a trial with values outside the space, UserError for a space that cannot be parsed."""
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


def trial_config(plan: SearchPlan, trial: Trial, where: str) -> Config:
    """The search's configuration with the trial's values and its seed; `where` names the record in errors.

    No module of a user is imported. Raises UserError for what is no configuration, as of a damaged record.
    """
    where = f"{where}: trial {trial.number}"
    tree = overridden_tree(plan.config, {**trial.overrides, "seed": trial.seed})
    if not custom_names(tree):
        return build_config(tree, where)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: no configuration: {error.errors()[0]['msg']}") from None
