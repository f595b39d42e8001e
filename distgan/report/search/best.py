"""The winner of a search as a configuration that `distgan train` takes."""

from __future__ import annotations

import distgan
from distgan.config.load import dump_config
from distgan.report import words
from distgan.report.search import words as search_words
from distgan.search.configurations import trial_config
from distgan.search.ranking import Ranked
from distgan.search.record import FILE, SearchRecord


def best_yaml(record: SearchRecord, winner: Ranked) -> str:
    """The whole configuration of the winner's best run, and above it a comment that says which it is."""
    run = winner.best_run
    measured = f"{record.plan.metric} {search_words.best_shown(run, record.plan.higher_is_better)}"
    lines = [
        f"# The best trial of the search {record.name}, number {run.number}: {measured}"
        f" ({search_words.direction(record.plan)}), by distgan {distgan.__version__}.",
    ]
    if winner.std is not None:
        mean = f"{words.number(winner.value)} ± {words.number(winner.std)}"
        lines.append(f"# Its best values with {winner.runs} seeds, this one among them: {mean}.")
    if record.plan.is_population:
        lines.append("# Its values changed on the way; these are those of its last generation.")
    lines.append("# It is trained anew with\n#   distgan train THIS_FILE --name NEW_NAME")
    return "\n".join([*lines, dump_config(trial_config(record.plan, run, f"{record.name}/{FILE}"))])
