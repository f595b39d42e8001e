"""A search that can be run: what its trials will be, and the run of each."""

from __future__ import annotations

from dataclasses import dataclass

from distgan.config.overrides import overridden
from distgan.config.schema import Config
from distgan.data.lease import ClaimedStorage
from distgan.data.storage import Storage
from distgan.search.generations import Generations, generation_end
from distgan.search.optuna_draws import ModelBased
from distgan.search.proposals import Proposals, Repeating, grid_draws, random_draws
from distgan.search.record import TRIALS, SearchRecord
from distgan.search.space import Space
from distgan.search.trials import Trial, run_name
from distgan.search.warm_start import known_trials
from distgan.training.job import Job


@dataclass(frozen=True)
class SearchJob:
    """A search that can be run.

    Attributes:
        record: as it stands; of a new search without trials.
        config: that all trials share.
        space: validated against it.
        resumes: whether an earlier session began it.
        notes: what the user should know, a sentence each.
        claim: the token of the process that has the search's folder: nothing is written there once it is another's.
    """

    record: SearchRecord
    config: Config
    space: Space
    storage_url: str
    resumes: bool
    notes: tuple[str, ...] = ()
    claim: str | None = None

    @property
    def search(self) -> Storage:
        """The search's folder."""
        folder = Storage.open(self.storage_url).child(self.record.name)
        return folder if self.claim is None else ClaimedStorage.of(folder, folder, self.claim)

    def proposals(self) -> Proposals:
        """What its trials will be."""
        plan, limits, space = self.record.plan, self.record.limits, self.space
        first = space.initial(self.config)
        inner: Proposals
        if plan.is_population:
            return Generations(plan, limits, space, first)
        if plan.sampler == "grid":
            inner = grid_draws(space, plan.grid_points)
        elif plan.sampler == "random":
            inner = random_draws(space, plan.seed, limits.trials, first)
        else:
            inner = ModelBased(
                plan.sampler,
                space,
                plan.seed,
                limits.trials,
                higher_is_better=plan.higher_is_better,
                first=first,
                earlier=known_trials(plan, space),
            )
        return Repeating(inner, plan, limits)

    def trial_job(self, trial: Trial) -> Job:
        """The run of a trial."""
        plan, values = self.record.plan, {**trial.overrides, "seed": trial.seed}
        if plan.is_population:
            values["training.kimg"] = generation_end(plan, trial.generation)
        config = overridden(self.config, values, f"trial {trial.number}")
        runs = self.search.child(TRIALS).url
        parent = None if trial.parent is None else f"{runs}/{run_name(trial.parent)}"
        return Job(config, trial.name, runs, continue_from=parent)
