"""The results of a search: leaderboard, importance of keys, cost, and their files."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

import distgan
from distgan.config.load import dump_config
from distgan.errors import UserError
from distgan.search import trial_text
from distgan.search.curve_figures import curves_figure
from distgan.search.importance import FEWEST, Importance, importance
from distgan.search.key_figures import keys_figure, parallel_figure
from distgan.search.ranking import Ranked, leaderboard
from distgan.search.record import FILE, SearchRecord, Trial, kimg_of, require_record, trial_config
from distgan.search.trial_tables import Column, Row, TrialRows
from distgan.storage.storage import Storage
from distgan.text import command, options, plural
from distgan.tracking import formatting
from distgan.training.run_spec import addresses_elsewhere

_MOST_DRAWN = 200  # a trial takes 20 ms


def draw_pictures(record: SearchRecord) -> Iterator[tuple[str, bytes]]:
    """File names and PNG files: values over kimg, parallel coordinates, values against each key.

    Of a search of many trials they show the best.
    """
    record = _of_the_best(record)
    for name, draw in (("curves", curves_figure), ("parallel", parallel_figure), ("keys", keys_figure)):
        yield f"{name}.png", _png(draw(record))


def _of_the_best(record: SearchRecord) -> SearchRecord:
    if len(record.trials) <= _MOST_DRAWN:
        return record
    rank = {one.trial.number: place for place, one in enumerate(leaderboard(record.plan, record.trials))}

    def place(trial: Trial) -> int:
        return rank.get(trial.number if trial.repeats is None else trial.repeats, len(rank))

    best = sorted(sorted(record.trials, key=place)[:_MOST_DRAWN], key=lambda trial: trial.number)
    name = f"{record.name}: the best {_MOST_DRAWN} of {len(record.trials):,} trials"
    return record.model_copy(update={"name": name, "trials": best})


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def best_yaml(record: SearchRecord, winner: Ranked) -> str:
    """The configuration of the winner's best run, after a comment that names the run."""
    run = winner.best_run
    measured = f"{record.plan.metric} {trial_text.best_shown(run, record.plan.higher_is_better)}"
    lines = [
        f"# The best trial of the search {record.name}, number {run.number}: {measured}"
        f" ({trial_text.direction(record.plan)}), by distgan {distgan.__version__}.",
    ]
    if winner.std is not None:
        mean = f"{formatting.number(winner.value)} ± {formatting.number(winner.std)}"
        lines.append(f"# Its best values with {winner.runs} seeds, this one among them: {mean}.")
    if record.plan.is_population:
        lines.append("# Its values changed on the way; these are those of its last generation.")
    lines.append("# It is trained anew with\n#   distgan train THIS_FILE --name NEW_NAME")
    return "\n".join([*lines, dump_config(trial_config(record.plan, run, f"{record.name}/{FILE}"))])


BEST = "best.yaml"

LEADERBOARD = "leaderboard.csv"

_MOST_ROWS = 20

_BAR = 30


def show_results(url: str, console: Console) -> None:
    """Prints the results of the search at a folder or URL, and writes its files anew.

    Raises UserError where there is no search, and where its folder cannot be written.
    """
    record = require_record(url)
    write_results(record, Storage.open(url))
    print_results(record, url, console)


def check_measured(record: SearchRecord, url: str) -> None:
    """Raises UserError where trials failed and none has a value."""
    failed = [trial for trial in record.trials if trial.state == "failed"]
    if failed and not any(trial.curve for trial in record.trials):
        first = failed[0]
        raise UserError(f"{url}: no trial of this search could be measured; trial {first.number}: {first.note}")


def write_results(record: SearchRecord, folder: Storage) -> None:
    """Writes `leaderboard.csv`, `best.yaml` where a trial has a value, and the figures into the search's folder."""
    ranked = leaderboard(record.plan, record.trials)
    folder.write_bytes(LEADERBOARD, leaderboard_csv(record).encode())
    if ranked:
        folder.write_bytes(BEST, best_yaml(record, ranked[0]).encode())
    for name, picture in draw_pictures(record):
        folder.write_bytes(name, picture)


def print_results(record: SearchRecord, url: str, console: Console, address: str | None = None) -> None:
    """Prints the leaderboard, the importance of each key, what the search cost, and how to resume its winner.

    Args:
        url: the search's folder, as commands show it.
        address: of the cluster that the printed commands name.
    """
    ranked = leaderboard(record.plan, record.trials)
    console.print(Text.assemble((record.name, "bold"), f"  {record.plan.metric}, {trial_text.direction(record.plan)}"))
    if ranked:
        console.print(_leaderboard_rows(record, ranked[:_MOST_ROWS]).table(console.width))
    else:
        _say(console, "no trial has a value")
    if len(ranked) > _MOST_ROWS:
        _say(console, f"{plural(len(ranked) - _MOST_ROWS, 'trial')} more in {LEADERBOARD}")
    console.print()
    for line in _importance_lines(record):
        _say(console, line)
    console.print()
    for line in [*_cost_lines(record), *(_commands(record, ranked[0], url, address) if ranked else [])]:
        _say(console, line)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _leaderboard_rows(record: SearchRecord, ranked: Sequence[Ranked]) -> TrialRows:
    metric = record.plan.metric
    repeated = any(one.runs > 1 for one in ranked)
    left = [Column("rank"), Column("trial"), Column(metric)]
    left += [*([Column("seeds")] if repeated else []), Column("at kimg")]
    rows = []
    for rank, one in enumerate(ranked, 1):
        best = one.best_run.best(record.plan.higher_is_better)
        assert best is not None, "a ranked trial has a value"
        spread = "" if one.std is None else f" ± {formatting.number(one.std)}"
        cells = {
            "rank": str(rank),
            "trial": trial_text.trial_shown(one.trial),
            metric: f"{formatting.number(one.value)}{spread}",
            "seeds": str(one.runs),
            "at kimg": formatting.kimg_count(best[0]),
            "state": trial_text.state_shown(one.trial, record),
        }
        short = {"state": cells["state"].partition(" at ")[0]}
        rows.append(Row(one.trial, cells, "bold green" if rank == 1 else "", short))
    return TrialRows(left, trial_text.searched(record.plan), [Column("state", right=False, spare=True)], rows)


def leaderboard_csv(record: SearchRecord) -> str:
    """A line for each ranked trial; a searched key that it does not set is empty."""
    keys = list(trial_text.searched(record.plan))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rank", "trial", "value", "std", "runs", "best_run", "best_kimg", "kimg", "state", "seed", *keys])
    for rank, one in enumerate(leaderboard(record.plan, record.trials), 1):
        best = one.best_run.best(record.plan.higher_is_better)
        assert best is not None, "a ranked trial has a value"
        fixed = [rank, one.trial.number, one.value, one.std, one.runs, one.best_run.number, best[0]]
        values = [one.trial.overrides.get(key) for key in keys]
        writer.writerow([*fixed, one.trial.kimg, one.trial.state, one.trial.seed, *values])
    return buffer.getvalue()


def _importance_lines(record: SearchRecord) -> Iterator[str]:
    found = importance(record.plan, record.trials)
    if found is None:
        yield f"importance of the keys: not known; it takes {FEWEST} trials with values that differ"
        return
    yield "importance of the keys (PED-ANOVA):"
    names = trial_text.searched(record.plan)
    labels = [trial_text.draw_name(one.name, names) for one in found]
    width = max(map(len, labels))
    most = max(one.trials for one in found)
    for label, one in zip(labels, found, strict=True):
        yield f"  {label:<{width}} {one.share:>5.0%} {'█' * round(_BAR * one.share)}{_used(one, most)}"


def _used(one: Importance, most: int) -> str:
    return "" if one.trials == most else f" (used in {one.trials} trials)"


def _cost_lines(record: SearchRecord) -> Iterator[str]:
    trials, plan = record.trials, record.plan
    kimg, whole = kimg_of(trials), len(trials) * plan.kimg
    text = f"{formatting.kimg_count(kimg)} kimg trained in {plural(len(trials), 'trial')}"
    if not plan.is_population and whole > 0:
        text += f", {kimg / whole:.0%} of the {formatting.kimg_count(whole)} that all of them to the end take"
    seconds = sum(trial.seconds for trial in trials)
    yield text + (f"; {formatting.duration(seconds)} of their time together" if seconds else "")
    starts = [trial.start_seconds for trial in trials if trial.start_seconds]
    if starts:
        together, median = formatting.duration(sum(starts)), statistics.median(starts)
        yield f"{together} before the first steps of {plural(len(starts), 'trial')}, the median {median:.1f} s"


def _commands(record: SearchRecord, first: Ranked, url: str, address: str | None) -> Iterator[str]:
    """Repeats addresses on other hosts than the search's: the record alone is not trusted with them."""
    place = url.rstrip("/")
    where = options(storage=place.rpartition("/")[0] or ".", address=address)
    config = trial_config(record.plan, first.best_run, place)
    elsewhere = [f"{key}={value}" for key, value in addresses_elsewhere(config, url).items()]
    of_file = elsewhere if "://" in place else []
    yield "to train the best configuration anew:"
    yield f"  {command('train', f'{place}/{BEST}', *of_file, *where, *options(name=f'{record.name}-best'))}"
    yield "to continue the best trial, here to twice its budget:"
    budget = f"training.kimg={2 * record.plan.kimg:.10g}"
    yield f"  {command('train', *options(from_trial=place), budget, *elsewhere, *where)}"
