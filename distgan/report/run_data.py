"""What a report shows of a run, read from its folder at any URL. Its content may be anyone's and is not trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from distgan.bounds import MOST_RECORD_BYTES, MOST_TEXT_BYTES, NOT_YAML, parse_yaml
from distgan.config.load import flatten
from distgan.errors import UserError
from distgan.storage.claim import process_at
from distgan.storage.storage import NotFoundError, Storage
from distgan.tracking import formatting
from distgan.tracking.jsonl import Row, parse_rows
from distgan.tracking.record import METRICS, read_summary
from distgan.tracking.tables import checkpoint_rows, distance_rows, session_rows
from distgan.training.events import Attempt, Summary
from distgan.training.health import HealthWarning

CONFIG = "config.yaml"

_CURVES = ("step", "evaluation")

_SUMMARY, _ATTEMPTS, _HEALTH = TypeAdapter(Summary), TypeAdapter(list[Attempt]), TypeAdapter(HealthWarning)


class NothingYetError(UserError):
    """A run has no step and no evaluation yet."""


@dataclass(frozen=True)
class RunData:
    """A run as its folder has it.

    Attributes:
        name: the last part of its URL; a report that shows several runs tells them apart by it.
        rows: of its metrics, in the order in which they were written.
        summary: at the end of its last session; None where there is none, or another version's.
        error: by which the last session ended.
        process: that trains it, or has claimed to; None without one.
        config: values by dotted key; empty where `config.yaml` cannot be read.
    """

    storage: Storage
    name: str
    rows: list[Row]
    summary: Summary | None
    error: str | None
    attempts: list[Attempt]
    process: str | None
    config: dict[str, Any]

    def of(self, event: str) -> list[Row]:
        return [row for row in self.rows if row["event"] == event]

    @property
    def kimg(self) -> float:
        """How far it has come."""
        return max(amount(row, "kimg") or 0.0 for row in self.rows)

    @property
    def floor(self) -> float | None:
        return None if self.summary is None else self.summary.floor

    @property
    def health(self) -> list[HealthWarning]:
        """The failure modes that the run has been in, oldest first."""
        if self.summary is not None and self.process is None:
            return self.summary.health
        found = []
        for row in self.of("warning"):
            try:
                found.append(_HEALTH.validate_python(row))
            except ValidationError:
                continue
        return found

    @property
    def restarted(self) -> bool:
        """Whether workers were lost in the last session."""
        return len(self.attempts) > 1 or any(attempt.failure for attempt in self.attempts)

    def overview(self) -> list[tuple[str, str]]:
        """Labels and texts: state, progress, speed, the monitored metric, checkpoints."""
        rows = [("state", self._state())]
        if self.summary is not None and self.process is None and self.kimg <= self.summary.kimg:
            stopped, trained, *spent = session_rows(self.summary)
            rows += [stopped, trained, *distance_rows(self.summary), *spent]
            return [*rows, *checkpoint_rows(self.summary)]
        budget = amount(self.config, "training.kimg")
        of = "" if budget is None else f" of {formatting.kimg_count(budget)}"
        rows.append(("trained", f"{formatting.kimg_count(self.kimg)}{of} kimg"))
        speeds = [speed for row in self.of("step") if (speed := amount(row, "images_per_second")) is not None]
        if speeds:
            rows.append(("speed", f"{formatting.number(speeds[-1])} images/s at the last logged step"))
        if evaluations := self.of("evaluation"):
            last = evaluations[-1]
            best, at, latest = amount(last, "best"), amount(last, "best_kimg"), amount(last, "value")
            metric = f"{last.get('metric')!s:.80}"
            if best is not None and at is not None:
                rows.append((f"{metric} best", f"{formatting.number(best)} at {formatting.kimg_count(at)} kimg"))
            if latest is not None:
                at = amount(last, "kimg") or 0.0
                rows.append((f"{metric} latest", f"{formatting.number(latest)} at {formatting.kimg_count(at)} kimg"))
        return rows

    def _state(self) -> str:
        if self.process is not None:
            before = ""
            if self.error is not None:
                before = f"; the session before ended by an error: {self.error}"
            elif self.summary is not None:
                before = f"; the session before: {formatting.stop_reason(self.summary)}"
            return f"training ({self.process}){before}"
        if self.error is not None:
            return f"ended by an error: {self.error}"
        return "ended" if self.summary is not None else "no summary: it was killed, or another version wrote it"


def read_run(url: str) -> RunData:
    """The run in the folder at `url`.

    Raises UserError where there is no such folder, NothingYetError where the run has no step and no evaluation yet.
    """
    storage = Storage.open(url)
    storage.require()
    try:
        rows = parse_rows(storage.read_bytes(METRICS, most=MOST_RECORD_BYTES))
    except NotFoundError:
        raise UserError(f"{storage.url}: no such file as {METRICS} there; name the folder of a run") from None
    rows = [row for row in rows if amount(row, "kimg") is not None]
    if not any(row["event"] in _CURVES for row in rows):
        raise NothingYetError(f"{storage.url}: its {METRICS} has no step and no evaluation yet; wait for one")
    found = read_summary(storage)
    error = found.get("error") if found.get("reason") == "error" else None
    return RunData(
        storage=storage,
        name=storage.url.rpartition("/")[2],
        rows=rows,
        summary=_parsed(_SUMMARY, found),
        error=None if error is None else str(error)[:2000],
        attempts=_parsed(_ATTEMPTS, found.get("attempts")) or [],
        process=process_at(storage),
        config=read_config(storage),
    )


def amount(row: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a row; None where it has none."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _parsed(adapter: TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def read_config(storage: Storage) -> dict[str, Any]:
    """The configuration in a run's folder by dotted key; empty where it cannot be read."""
    try:
        tree = parse_yaml(storage.read_bytes(CONFIG, most=MOST_TEXT_BYTES).decode())
    except (NotFoundError, *NOT_YAML):
        return {}
    return flatten({str(key): value for key, value in tree.items()}) if isinstance(tree, dict) else {}
