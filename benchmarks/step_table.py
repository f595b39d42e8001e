"""The rows of `benchmarks.step`, and their table as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLAIN, EAGER = "plain PyTorch", "eager"


@dataclass
class Row:
    """A side and what was measured of it. `reason` says why there are no figures."""

    name: str
    overrides: tuple[str, ...]
    precision: str = "float32"
    reason: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `images_per_s`, `ratio` (to the plain loop in the same turn) and `step_ms` are medians."""
        tree: dict[str, Any] = {
            "name": self.name,
            "overrides": self.overrides,
            "precision": self.precision,
            "reason": self.reason,
        }
        if self.rates:
            middle = statistics.median(self.rates)
            tree |= {"images_per_s": middle, "slowest": min(self.rates), "fastest": max(self.rates)}
            tree["ratio"] = statistics.median(self.ratios) if self.ratios else None
            tree["turns"] = len(self.rates)
        return tree | self.figures


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of a measurement, as `Bench.as_dict` has it: figures, then what a step consists of."""
    draws = found["host_draws"]
    lines = [
        f"`{found['preset']} {' '.join(found['overrides'])}`, batches of {found['batch']}",
        "",
        "| side | images/s | to plain | MiB | host draws | early | losses | weights | | start, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(_cells(row))} |" for row in found["rows"]),
        "",
        *(f"- {row['name']}: {row['reason']}" for row in found["rows"] if row["reason"] is not None),
        *(f"- {row['name']}, after its turns: {row['failed']}" for row in found["rows"] if "failed" in row),
        *_notes(found),
        f"- MiB: {found['memory']}",
    ]
    if draws:
        lines.append(f"- host draws: {draws['count']} a step, {draws['ms']:.2f} ms, as a share of a step")
    phases = [row for row in found["rows"] if row.get("phases")]
    if phases:
        lines += ["", f"Milliseconds of a step under the profiler, {_kinds(phases[0])}:", ""]
        lines += [f"- {row['name']}: {_phases(row)}" for row in phases]
    return "\n".join(lines)


def _notes(found: Mapping[str, Any]) -> list[str]:
    moved = next((row["weights_moved"] for row in found["rows"] if "weights_moved" in row), None)
    if moved is None:
        return []
    limits = [
        f"{name} {', '.join(f'{value:g}' for value in limit.values())}" for name, limit in found["tolerances"].items()
    ]
    return [
        "- early, losses, weights: largest relative differences from eager, without dropout: of the losses of the "
        f"first 3 steps, of those of {found['compared_steps']} steps, of the weights after them (which moved by "
        f"{moved:.1e}); ok: at most {'; '.join(limits)}"
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "images_per_s" not in row:
        return [row["name"], "—", *[""] * 8]
    differences = row.get("differences", {})
    return [
        row["name"],
        f"{row['images_per_s']:,.1f}",
        f"{row['ratio']:.2f}" if row["ratio"] is not None else "",
        f"{row['peak_mib']:,.0f}" if "peak_mib" in row else "",
        f"{row['draws_share']:.1%}" if "draws_share" in row else "",
        *(f"{differences[part]:.1e}" if part in differences else "" for part in ("early", "losses", "weights")),
        {True: "ok", False: "not ok"}[row["ok"]] if "ok" in row else "",
        f"{row['start_s']:.1f}" if "start_s" in row else "",
    ]


def _kinds(row: Mapping[str, Any]) -> str:
    return "host / device" if "device_busy_ms" in row else "host"


def _phases(row: Mapping[str, Any]) -> str:
    gpu = "device_busy_ms" in row
    parts = sorted(row["phases"].items(), key=lambda part: -max(part[1].values()))
    return ", ".join(f"{name} {of['host_ms']:.2f}" + (f" / {of['device_ms']:.2f}" if gpu else "") for name, of in parts)
