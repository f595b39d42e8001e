"""The plan of a run and its summary as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from distgan.text import plural
from distgan.tracking import formatting
from distgan.tracking.narrow import NarrowTable
from distgan.training.events import Summary

if TYPE_CHECKING:
    from distgan.training.run_spec import RunPlan


def print_plan(plan: RunPlan, device: str, console: Console) -> None:
    """Prints the layers of the networks and the sizes of the run; `device` is that of its workers."""
    for name, rows in plan.layers.items():
        table = NarrowTable(title=f"{name}: {plan.parameters[name]:,} parameters", title_justify="left")
        table.add_column("layer", no_wrap=True)
        table.add_column("output", no_wrap=True)
        table.add_column("parameters", justify="right", no_wrap=True)
        for layer, shape, parameters in rows:
            table.add_row(layer, shape, f"{parameters:,}" if parameters else "")
        console.print(table)
    table = NarrowTable(title="plan", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _arithmetic(plan, device):
        table.add_row(key, value)
    console.print(table)
    if plan.small_dataset is not None:
        console.print(f"warning: {formatting.small_dataset(plan.small_dataset)}", highlight=False, markup=False)


def _arithmetic(plan: RunPlan, device: str) -> list[tuple[str, str]]:
    config = plan.spec.config
    batch, groups, streams = config.training.batch_size, config.scale.groups, config.data.streams
    workers = config.scale.workers
    shares = [groups * (rank + 1) // workers - groups * rank // workers for rank in range(workers)]
    rows = [
        ("budget", f"{config.training.kimg:g} kimg: {plan.steps:,} steps of {config.objective.critic_steps} x {batch}"),
        (
            "batch",
            f"{batch} images: {groups} groups of {batch // groups}, {batch // streams} from each of {streams} streams",
        ),
        ("workers", config.scale.range_text.removesuffix("s").removesuffix(" worker")),
        ("device", device),
        ("groups per worker", _range(shares)),
        ("images per worker", _range([share * batch // groups for share in shares])),
        ("streams per worker", _range([share * streams // groups for share in shares])),
        ("run", plan.spec.run.url),
        ("starts from", _beginning(plan)),
    ]
    if config.num_classes is not None:
        rows.append(("labels", f"{config.num_classes} classes"))
    elif plan.index is not None and len(plan.index.header.classes) > 1:
        classes = len(plan.index.header.classes)
        rows.append(
            ("labels", f"not used: the data has {classes} classes; for conditional networks set num_classes={classes}")
        )
    if plan.index is not None:
        epochs = config.training.kimg * 1000 / len(plan.index)
        rows.append(("data", f"{plural(len(plan.index), 'image')} at {config.data.url}: {epochs:.1f} epochs"))
    return rows


def _beginning(plan: RunPlan) -> str:
    spec = plan.spec
    if plan.resumes is not None:
        of = "" if spec.continue_from is None else f"; its run began with the state of {spec.continue_from}"
        return f"{plan.resumes.kimg:g} kimg{of}"
    return "random weights" if spec.init_from is None else f"the weights of {spec.init_from}"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


_WITHIN = {"data wait": "training"}


def summary_table(summary: Summary) -> RenderableType:
    """The reason for the end, budget used, time, metrics, health and checkpoints; below, how to continue the run."""
    table = NarrowTable(title=Text(summary.name, "bold"), title_justify="left", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    health = [("health", formatting.health_warning(event)) for event in summary.health]
    for rows in (session_rows(summary), distance_rows(summary), health, checkpoint_rows(summary)):
        for label, value in rows:
            table.add_row(Text(label), Text(value))
        if rows:
            table.add_section()
    return Group(table, Text(f"to continue: {formatting.next_command(summary)}"))


def session_rows(summary: Summary) -> list[tuple[str, str]]:
    """Labels and texts: why the run stopped, what it trained, time, speed, restarts and bad samples."""
    rows = [("stopped", formatting.stop_reason(summary)), ("trained", _trained(summary))]
    if summary.seconds:
        rows.append(("time", _time(summary)))
    if summary.images_per_second > 0:
        rows.append(("speed", f"{formatting.number(summary.images_per_second)} images/s"))
    if summary.goodput:
        rows.append(("goodput", f"{100 * summary.goodput:.1f} % of the time in steps that were kept"))
    failures = [attempt.failure for attempt in summary.attempts if attempt.failure is not None]
    if failures:
        rows.append(("restarts", "\n".join(failures)))
    if summary.bad_samples is not None:
        rows.append(("bad samples", f"{summary.bad_samples:,} skipped (data.bad_samples=skip)"))
    return rows


def checkpoint_rows(summary: Summary) -> list[tuple[str, str]]:
    """Labels and names of the best and the last checkpoint."""
    return [
        ("best checkpoint", summary.best_checkpoint or "none"),
        ("last checkpoint", summary.last_checkpoint or "none"),
    ]


def remaining_share(summary: Summary) -> float | None:
    """(best − floor) / (untrained − floor): 0 is as good as real data, 1 no better than the start."""
    best, floor, untrained = summary.best, summary.floor, summary.untrained
    if best is None or floor is None or untrained is None or untrained <= floor:
        return None
    return (best - floor) / (untrained - floor)


def _trained(summary: Summary) -> str:
    workers = plural(summary.workers, "worker")
    text = f"{formatting.kimg_count(summary.kimg)} kimg in {plural(summary.steps, 'step')}, {workers}"
    if summary.resumed_at_kimg == summary.kimg > 0:
        text += ", nothing in this session"
    elif summary.resumed_at_kimg:
        text += f", resumed at {formatting.kimg_count(summary.resumed_at_kimg)} kimg"
    return text


def _time(summary: Summary) -> str:
    seconds, run_seconds = summary.seconds, summary.run_seconds
    total = seconds.get("total", 0.0)
    phases = [(name, spent) for name, spent in seconds.items() if name != "total"]
    parts = []
    if "total" in seconds:
        parts.append(f"{'this session' if summary.resumed_at_kimg else 'total'} {formatting.duration(total)}")
    if summary.resumed_at_kimg and run_seconds is not None and run_seconds > total:
        parts.insert(0, f"all sessions {formatting.duration(run_seconds)}")
    for name, spent in sorted(phases, key=lambda phase: -phase[1]):
        share = [f"{spent / total:.0%}"] if total > 0 else []
        notes = share + ([f"within {_WITHIN[name]}"] if name in _WITHIN else [])
        parts.append(f"{name} {formatting.duration(spent)}" + (f" ({', '.join(notes)})" if notes else ""))
    return "\n".join(parts)


def distance_rows(summary: Summary) -> list[tuple[str, str]]:
    """Labels and values of the monitored metric: at the start, best, latest, its floor, and the gap that remains."""
    return list(_distances(summary))


def _distances(summary: Summary) -> Iterator[tuple[str, str]]:
    start, worse = formatting.start_name(summary.given), formatting.worse_than_start(summary)
    if summary.untrained is not None:
        yield f"{summary.metric} {start}", formatting.number(summary.untrained)
    if summary.best is not None:
        at = "" if summary.best_kimg is None else f" at {formatting.kimg_count(summary.best_kimg)} kimg"
        yield f"{summary.metric} best", formatting.number(summary.best) + at + worse
    if summary.latest is not None and summary.latest_kimg is not None:
        if summary.latest_kimg == summary.kimg:
            yield f"{summary.metric} final", formatting.number(summary.latest)
        else:
            at = f"{formatting.number(summary.latest)} at {formatting.kimg_count(summary.latest_kimg)} kimg"
            yield f"{summary.metric} latest", f"{at}, none since"
    if summary.floor is not None:
        yield f"{summary.metric} floor", formatting.floor(summary.floor, summary.floor_images)
    share = remaining_share(summary)
    if share is not None:
        yield "remaining gap", f"{100 * share:.1f} %{worse} (0 % = real data, 100 % = {start})"
