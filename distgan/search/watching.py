"""A search on the terminal of someone who did not start it, from its folder at any URL."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from distgan.search.record import SearchRecord, require_record, trial_url
from distgan.search.results import print_results
from distgan.search.search_console import SearchDisplay
from distgan.search.trial_tables import TrialProgress
from distgan.storage.claim import process_at
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import Storage
from distgan.tracking.record import last_rows

# Between two looks.
WATCH_S = 10.0


def watch_results(
    url: str, console: Console, every_s: float = WATCH_S, wait: Callable[[float], None] = time.sleep
) -> None:
    """Shows a search until no process leads it any more, then its results; writes nothing.

    On a terminal it is a table that is drawn anew, elsewhere a line for each event. Storage that goes away after the
    first look is waited for.

    Raises UserError where there is no search.
    """
    search, retry = Storage.open(url), NO_RETRY
    with SearchDisplay(console) as display:
        while True:
            leads = retry(lambda: process_at(search))
            record = retry(lambda: require_record(url))
            display.update(record, retry(lambda: running_trials(record, search)))  # noqa: B023 - called at once
            if leads is None:
                break
            wait(every_s)
            retry = Retry(display.message)
        if record.ended is None:
            display.message(f"{record.name}: no process leads this search now; the command that began it resumes it")
    print_results(record, url, console)


def running_trials(record: SearchRecord, search: Storage) -> dict[int, TrialProgress]:
    """How far the running trials have come, by number, as far as their metrics say."""
    found = {}
    for trial in record.trials:
        if trial.state != "begun":
            continue
        rows = [row for row in last_rows(Storage.open(trial_url(search, trial))) or [] if row["event"] == "step"]
        kimg, speed = (rows[-1].get(key) for key in ("kimg", "images_per_second")) if rows else (None, None)
        if isinstance(kimg, int | float) and isinstance(speed, int | float):
            found[trial.number] = TrialProgress(float(kimg), float(speed))
    return found
