"""The end of a run as a table."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from distgan.report import words
from distgan.training.events import Summary

_WITHIN = {"data wait": "training"}


def summary_table(summary: Summary) -> RenderableType:
    """What the run did: why it stopped, how far it came, how long that took, how good it is, what is kept.

    Below it, how to go on with the run.
    """
    table = Table(title=Text(summary.name, "bold"), title_justify="left", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("stopped", Text(words.stop_reason(summary)))
    table.add_row("trained", Text(_trained(summary)))
    if summary.seconds:
        table.add_row("time", Text(_time(summary)))
    if summary.images_per_second > 0:
        table.add_row("speed", Text(f"{words.number(summary.images_per_second)} images/s"))
    if summary.bad_samples is not None:
        table.add_row("bad samples", Text(f"{summary.bad_samples:,} passed over (data.bad_samples=skip)"))
    table.add_section()
    for label, value in _distances(summary):
        table.add_row(Text(label), Text(value))
    if summary.health:
        table.add_section()
        for event in summary.health:
            table.add_row("not healthy", Text(words.ill_health(event)))
    table.add_section()
    table.add_row("best checkpoint", Text(summary.best_checkpoint or "none"))
    table.add_row("last checkpoint", Text(summary.last_checkpoint or "none"))
    return Group(table, Text(f"to go on: {words.way_on(summary)}"))


def remaining_share(summary: Summary) -> float | None:
    """(best − floor) / (untrained − floor): 1 is no better than what the run began with, 0 is as good as real data."""
    best, floor, untrained = summary.best, summary.floor, summary.untrained
    if best is None or floor is None or untrained is None or untrained <= floor:
        return None
    return (best - floor) / (untrained - floor)


def _trained(summary: Summary) -> str:
    workers = words.plural(summary.workers, "worker")
    told = f"{words.kimg_count(summary.kimg)} kimg in {words.plural(summary.steps, 'step')}, {workers}"
    if summary.resumed_at_kimg == summary.kimg > 0:
        told += ", nothing in this session"
    elif summary.resumed_at_kimg:
        told += f", resumed at {words.kimg_count(summary.resumed_at_kimg)} kimg"
    return told


def _time(summary: Summary) -> str:
    seconds, run_seconds = summary.seconds, summary.run_seconds
    total = seconds.get("total", 0.0)
    phases = [(name, spent) for name, spent in seconds.items() if name != "total"]
    parts = []
    if "total" in seconds:
        parts.append(f"{'this session' if summary.resumed_at_kimg else 'total'} {words.duration(total)}")
    if summary.resumed_at_kimg and run_seconds is not None and run_seconds > total:
        parts.insert(0, f"the run with its earlier sessions {words.duration(run_seconds)}")
    for name, spent in sorted(phases, key=lambda phase: -phase[1]):
        share = [f"{spent / total:.0%}"] if total > 0 else []
        notes = share + ([f"within {_WITHIN[name]}"] if name in _WITHIN else [])
        parts.append(f"{name} {words.duration(spent)}" + (f" ({', '.join(notes)})" if notes else ""))
    return "\n".join(parts)


def _distances(summary: Summary) -> Iterator[tuple[str, str]]:
    start, worse = words.start(summary.given), words.worse_than_start(summary)
    if summary.untrained is not None:
        yield f"{summary.metric} {start}", words.number(summary.untrained)
    if summary.best is not None:
        at = "" if summary.best_kimg is None else f" at {words.kimg_count(summary.best_kimg)} kimg"
        yield f"{summary.metric} best", words.number(summary.best) + at + worse
    if summary.latest is not None and summary.latest_kimg is not None:
        if summary.latest_kimg == summary.kimg:
            yield f"{summary.metric} final", words.number(summary.latest)
        else:
            at = f"{words.number(summary.latest)} at {words.kimg_count(summary.latest_kimg)} kimg"
            yield f"{summary.metric} latest", f"{at}, none since"
    if summary.floor is not None:
        yield f"{summary.metric} floor", words.floor(summary.floor, summary.floor_images)
    share = remaining_share(summary)
    if share is not None:
        yield "remaining gap", f"{100 * share:.1f} %{worse} (0 % = real data, 100 % = {start})"
