"""The state of the runs and searches in a folder at any URL, by bounded reads: no checkpoint, no whole metrics."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, get_args

from distgan.errors import UserError
from distgan.report.run_data import CONFIG, amount, read_config
from distgan.search.ranking import leaderboard
from distgan.search.record import FILE, SearchRecord, kimg_of, require_record
from distgan.storage.claim import process_at
from distgan.storage.storage import Storage, UnavailableError
from distgan.text import command
from distgan.tracking import formatting
from distgan.tracking.jsonl import Row
from distgan.tracking.record import METRICS, last_rows, read_summary
from distgan.training.health import FailureMode

MOST_RUNS = 1000

_AT_ONCE = 16

_ENDED_WELL = ("budget", "plateau", "target")

_ERROR = "error"

State = Literal["running", "done", "stopped", "failed", "killed"]


@dataclass(frozen=True)
class RunRow:
    """A run, or a search, as a list shows it. What its files do not say is None, or empty.

    Attributes:
        state: `killed` where no process trains it any more and none has written how it ended.
        why: how it ended: a `StopReason`, or a `SearchEnd` but for the usual one.
        error: the line of the error by which it ended.
        budget_kimg: its length; of a search None.
        best: of the monitored metric.
        updated: when its metrics were last written, in seconds since 1970.
    """

    name: str
    url: str
    kind: Literal["run", "search"]
    state: State
    why: str = ""
    error: str = ""
    kimg: float = 0.0
    budget_kimg: float | None = None
    metric: str = ""
    best: float | None = None
    best_kimg: float | None = None
    updated: float | None = None

    @property
    def shown_state(self) -> str:
        """`running`, `stopped: time`, `failed`."""
        return f"{self.state}: {self.why}" if self.why else self.state

    @property
    def age(self) -> str:
        """How long ago it was last written: `5 min`; empty where that is not known."""
        if self.updated is None:
            return ""
        seconds = max(0.0, time.time() - self.updated)
        for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
            if seconds >= size:
                return f"{int(seconds // size)} {name}"
        return f"{int(seconds)} s"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_runs(url: str) -> tuple[list[RunRow], int]:
    """The runs and searches directly below a folder, the one that was written last at the end; how many were not read.

    Raises UserError where there is no such folder, and for one that is itself a run or a search.
    """
    folder = Storage.open(url)
    folder.require()
    names = folder.list()
    if FILE in names:
        listed = command("runs", "list", f"{url.rstrip('/')}/trials")
        raise UserError(f"{url}: is a search, not a folder of runs; its trials are in `{listed}`")
    if METRICS in names or CONFIG in names:
        raise UserError(f"{url}: is a run, not a folder of runs; see `{command('runs', 'show', url)}`")
    with ThreadPoolExecutor(_AT_ONCE) as executor:
        rows = [row for row in executor.map(partial(_row_or_error, folder), names[:MOST_RUNS]) if row is not None]
    return sorted(rows, key=lambda row: (row.updated or 0.0, row.name)), max(0, len(names) - MOST_RUNS)


def require_run(url: str) -> tuple[RunRow, Storage]:
    """The run in the folder at `url`. Raises UserError where there is none, and for a search."""
    folder = Storage.open(url)
    folder.require()
    row = read_row(folder)
    if row is None:
        raise UserError(f"{folder.url}: no {METRICS} and no {CONFIG} there; name the folder of a run")
    if row.kind == "search":
        raise UserError(f"{url}: is a search; see `{command('tune', '--results', url)}`")
    return row, folder


def read_row(folder: Storage) -> RunRow | None:
    """The run or search in a folder; None where there is none."""
    if folder.exists(FILE):
        try:
            return _search_row(folder, require_record(folder.url))
        except UserError as error:
            return RunRow(_name(folder), folder.url, "search", "failed", error=str(error))
    rows = last_rows(folder)
    if rows is None and not folder.exists(CONFIG):
        return None
    return _run_row(folder, rows or [], None if rows is None else folder.modified(METRICS))


def _row_or_error(folder: Storage, name: str) -> RunRow | None:
    """As `read_row`; a run with a name or file that is refused, as one far too large, does not hide the others."""
    try:
        return read_row(folder.child(name))
    except UnavailableError:
        raise
    except UserError as error:
        return RunRow(name, f"{folder.url}/{name}", "run", "failed", error=str(error))


def _run_row(folder: Storage, rows: list[Row], updated: float | None) -> RunRow:
    summary = read_summary(folder)
    kimg = max([amount(row, "kimg") or 0.0 for row in rows], default=amount(summary, "kimg") or 0.0)
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    last = evaluations[-1] if evaluations else summary
    state, why = _state(folder, summary, kimg)
    budget = amount(summary, "budget_kimg")
    if budget is None or state in {"running", "killed"}:
        budget = amount(read_config(folder), "training.kimg") or budget
    return RunRow(
        name=_name(folder),
        url=folder.url,
        kind="run",
        state=state,
        why=why,
        error=str(summary.get("error") or "")[:2000] if why == _ERROR else "",
        kimg=kimg,
        budget_kimg=budget,
        metric=str(last.get("metric") or "")[:80],
        best=amount(last, "best"),
        best_kimg=amount(last, "best_kimg"),
        updated=updated,
    )


def _state(folder: Storage, summary: Row, kimg: float) -> tuple[State, str]:
    if process_at(folder) is not None:
        return "running", ""
    reason = str(summary.get("reason") or "")[:80]
    if reason == _ERROR:
        return "failed", reason
    ended = amount(summary, "kimg")
    if not reason or (ended is not None and kimg > ended):
        return "killed", ""
    if reason in get_args(FailureMode):
        return "failed", reason
    return ("done" if reason in _ENDED_WELL else "stopped"), reason


def _search_row(folder: Storage, record: SearchRecord) -> RunRow:
    ranked = leaderboard(record.plan, record.trials)
    best = ranked[0].best_run.best(record.plan.higher_is_better) if ranked else None
    state: State = "running" if process_at(folder) is not None else "killed" if record.ended is None else "done"
    if record.ended in {"interrupted", "budget"} and state == "done":
        state = "stopped"
    return RunRow(
        name=_name(folder),
        url=folder.url,
        kind="search",
        state=state,
        why=record.ended if state == "stopped" and record.ended else "",
        kimg=kimg_of(record.trials),
        metric=record.plan.metric[:80],
        best=None if best is None else best[1],
        best_kimg=None if best is None else best[0],
        updated=folder.modified(FILE),
    )


def _name(folder: Storage) -> str:
    return folder.url.rpartition("/")[2]


def shown_best(row: RunRow) -> str:
    """`503.8 at 96`, in kimg; empty without an evaluation."""
    if row.best is None:
        return ""
    at = "" if row.best_kimg is None else f" at {formatting.kimg_count(row.best_kimg)}"
    return formatting.number(row.best) + at


def shown_kimg(row: RunRow) -> str:
    """`96`, or `12 of 96` where it has not come to the end."""
    kimg = formatting.kimg_count(row.kimg)
    if row.budget_kimg is None or row.kimg >= row.budget_kimg:
        return kimg
    return f"{kimg} of {formatting.kimg_count(row.budget_kimg)}"
