"""Going on with the winner of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distgan.config.load import dump_config, parse_config
from distgan.config.schema import Config
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.search.configurations import trial_config
from distgan.search.ranking import leaderboard
from distgan.search.record import FILE, require_record, trial_url
from distgan.training.addresses import check_addresses, keys_not_given
from distgan.training.sampling import find_checkpoint


@dataclass(frozen=True)
class Winner:
    """What a new run takes over: the configuration of the winner, and the URL of its best checkpoint."""

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
