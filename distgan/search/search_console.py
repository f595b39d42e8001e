"""A search on the terminal: a live table, or a line for each event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.live import Live

from distgan.search import trial_text
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord, Trial, kimg_of
from distgan.search.trial_tables import TrialProgress, trials_table
from distgan.text import plural
from distgan.tracking import formatting
from distgan.tracking.console import LiveConsole


class SearchDisplay(LiveConsole):
    """Shows a search: a live table on a terminal, elsewhere a plain line for each event.

    Args:
        console: where to write; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._table: RenderableType = ""
        self._last: SearchRecord | None = None

    def update(self, record: SearchRecord, progress: Mapping[int, TrialProgress]) -> None:
        """Shows the search; prints what is new since the last call.

        Make the first call before anything starts: of trials that have ended by then only the number is shown.

        Args:
            record: do not change it afterwards.
            progress: of running trials, by number.
        """
        interactive = self._console.is_interactive
        for text, always in _news(self._last, record):
            if always or not interactive:
                self.message(text)
        self._last = record
        if interactive:
            self._table = trials_table(record, progress)
            self._show()

    def _show(self) -> None:
        if self._live is None:
            self._live = Live(get_renderable=lambda: self._table, console=self._console, refresh_per_second=1)
            self._live.start()
        elif self._last is not None and self._last.ended is not None:
            self._live.refresh()


def _news(last: SearchRecord | None, record: SearchRecord) -> Iterator[tuple[str, bool]]:
    """Lines of news, each with whether it is also printed above a live table."""
    if last is None:
        yield _beginning(record), False
    known = _known(record if last is None else last, all_begin=last is None)
    best = _best([trial.best(record.plan.higher_is_better) for trial in known.values()], record)
    for trial in record.trials:
        earlier = known.get(trial.number)
        if trial.state != "waiting" and (earlier is None or earlier.state == "waiting"):
            yield _begins(trial, record, resumes=last is None and bool(trial.curve)), False
        for point in trial.curve:
            if earlier is None or point not in earlier.curve:
                improved = _best([best, point], record)
                yield _evaluated(trial, point, record, is_best=improved is point), False
                best = improved
        if trial.ended and (earlier is None or not earlier.ended):
            yield _ended(trial, record), trial.state == "failed"
    if record.ended is not None and (last is None or last.ended is None):
        yield _end(record), True


def _known(record: SearchRecord, all_begin: bool) -> dict[int, Trial]:
    """The trials of the last call; on the first call this record's, where what has not ended counts as waiting."""
    waiting = {"state": "waiting"}
    return {
        trial.number: trial.model_copy(update=waiting) if all_begin and not trial.ended else trial
        for trial in record.trials
    }


def _best(points: Sequence[tuple[float, float] | None], record: SearchRecord) -> tuple[float, float] | None:
    """The best (kimg, value), of equal ones the first."""
    sign = -1 if record.plan.higher_is_better else 1
    return min((point for point in points if point is not None), key=lambda point: sign * point[1], default=None)


def _beginning(record: SearchRecord) -> str:
    plan, ended = record.plan, sum(trial.ended for trial in record.trials)
    begins = f"resumes, {plural(ended, 'trial')} {'has' if ended == 1 else 'have'} ended" if record.trials else "begins"
    return (
        f"{record.name}: {begins}; {plural(record.limits.trials, 'trial')} of "
        f"{formatting.kimg_count(plan.kimg)} kimg, drawn by {plan.sampler}, stopped by {plan.scheduler}, "
        f"compared by {plan.metric} ({trial_text.direction(plan)})"
    )


def _begins(trial: Trial, record: SearchRecord, resumes: bool) -> str:
    values = trial_text.values_shown(trial, trial_text.searched(record.plan))
    verb = f"resumes at {formatting.kimg_count(trial.kimg)} kimg" if resumes else "begins"
    origin = ""
    if trial.repeats is not None:
        origin = f" as trial {trial.repeats} with seed {trial.seed}"
    elif trial.parent is not None:
        origin = f" from trial {trial.parent}, generation {trial.generation}"
    return f"trial {trial.number} {verb}{origin}: {values}"


def _evaluated(trial: Trial, point: tuple[float, float], record: SearchRecord, is_best: bool) -> str:
    kimg, value = point
    best = " (best of the search so far)" if is_best else ""
    where = f"at {formatting.kimg_count(kimg)} kimg"
    return f"trial {trial.number} {where}: {record.plan.metric} {formatting.number(value)}{best}"


def _ended(trial: Trial, record: SearchRecord) -> str:
    text = f"trial {trial.number} ended: {trial_text.state_shown(trial, record)}"
    if trial.note:
        text += f": {trial_text.failure(trial)}"
    best = trial_text.best_shown(trial, record.plan.higher_is_better)
    return f"{text}; best {best}" if best else text


def _end(record: SearchRecord) -> str:
    trials = record.trials
    ranked = leaderboard(record.plan, trials)
    text = (
        f"{record.name}: ended ({record.ended}) with {plural(len(trials), 'trial')}, "
        f"{formatting.kimg_count(kimg_of(trials))} kimg trained"
    )
    if not ranked:
        return f"{text}; no trial has a value"
    return f"{text}; best {record.plan.metric} {formatting.number(ranked[0].value)}: trial {ranked[0].trial.number}"
