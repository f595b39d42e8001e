"""The rows of `metrics.jsonl`: one JSON object a line for each event of a run."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distgan.bounds import parse_json
from distgan.training.events import CheckpointSaved, EvaluationResult, StepMetrics
from distgan.training.health import HealthWarning

Row = dict[str, Any]
_KINDS: dict[type, str] = {
    StepMetrics: "step",
    EvaluationResult: "evaluation",
    HealthWarning: "warning",
    CheckpointSaved: "checkpoint",
}
# Their names in version 0.1.0.
_FORMER_KINDS = {"trained": "step", "evaluated": "evaluation", "warned": "warning", "checkpointed": "checkpoint"}


def event_row(event: StepMetrics | EvaluationResult | HealthWarning | CheckpointSaved) -> Row:
    """The event as one flat row: `event` is its kind; terms, metrics and seconds have keys of their own.

    `time` is that of the call, in seconds since 1970.
    """
    row: Row = {"event": _KINDS[type(event)], "time": round(time.time(), 3)} | asdict(event)
    row |= row.pop("terms", {}) | row.pop("measured", {}) | row.pop("more", {})
    row |= {f"seconds/{kind}": seconds for kind, seconds in row.pop("seconds_of", {}).items()}
    return row


def to_json(value: Any, indent: int | None = None) -> str:
    """Standard JSON: numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`, in the order in which they were written."""
    return parse_rows(path.read_bytes())


def parse_rows(data: bytes) -> list[Row]:
    """The rows in the content of a `metrics.jsonl`; lines that are no rows, as a half-written last one, are left out.

    An evaluation that an earlier version wrote has its `distance` as the `value`, of which lower is better.
    """
    rows = [row for row, _ in _parsed(data)]
    return [{"value": row["distance"], "higher_is_better": False} | row if "distance" in row else row for row in rows]


def lines_until(data: bytes, step: int) -> bytes:
    """The lines of a `metrics.jsonl` that were written up to training step `step`, without half-written ones."""
    return b"".join(line + b"\n" for row, line in _parsed(data) if _written_at(row) <= step)


def last_checkpoint(data: bytes) -> str | None:
    """The name of the last checkpoint in a `metrics.jsonl`; None without one."""
    names = [str(row.get("name")) for row, _ in _parsed(data) if row["event"] == "checkpoint"]
    return names[-1] if names else None


def _written_at(row: Row) -> int:
    """The training step of a row, or the later one at which the result of an evaluation came."""
    reported = row.get("reported_step", 0)
    return max(row["step"], reported) if isinstance(reported, int) else int(row["step"])


def _parsed(data: bytes) -> list[tuple[Row, bytes]]:
    """Each whole row with its line."""
    found = []
    for line in data.split(b"\n"):
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            row["event"] = _FORMER_KINDS.get(str(row.get("event")), row.get("event"))
            found.append((row, line))
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
