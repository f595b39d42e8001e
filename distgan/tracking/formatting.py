"""Numbers and events of a run as words for people."""

from __future__ import annotations

import math
from typing import get_args

from distgan.training.events import (
    EvaluationResult,
    ProfileWritten,
    RunStarted,
    SmallDatasetWarning,
    StepMetrics,
    Summary,
)
from distgan.training.health import FailureMode, HealthWarning

_MOST_DECIMALS = 8


def number(value: float) -> str:
    """Three or more significant digits without an exponent: `2,701`, `75.7`, `0.812`, `0.0123`; down to a millionth."""
    size = abs(value)
    decimals = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    if 0 < size < 0.1:
        decimals = min(2 - math.floor(math.log10(size)), _MOST_DECIMALS)
    return f"{value:,.{decimals}f}"


def kimg_count(kimg: float) -> str:
    """Thousands of images, with at most one decimal: `51.2`, `1,000`."""
    return f"{kimg:,.1f}".removesuffix(".0")


def parameter_count(parameters: int) -> str:
    """`3.6 M`, `812 k`."""
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plural(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def losses(event: StepMetrics) -> dict[str, float]:
    """The loss terms by their short names."""
    return {name.removeprefix("loss/"): v for name, v in event.terms.items() if name.startswith("loss/")}


def setting(event: RunStarted) -> str:
    """What computes: workers, threads, device and batch."""
    load = event.crowding_load
    busy = "" if load is None else f" (the machine is busy, load {load:.1f}: scale.threads=1 may be faster)"
    return (
        f"{plural(event.workers, 'worker')} on {event.device}, {plural(event.threads, 'thread')} each{busy}, "
        f"batch of {event.batch_size} in {plural(event.groups, 'group')}"
    )


def networks(event: RunStarted) -> str:
    """The sizes of the networks."""
    return (
        f"generator {parameter_count(event.generator_parameters)} parameters, "
        f"discriminator {parameter_count(event.discriminator_parameters)}"
    )


def data(event: RunStarted) -> str:
    """What is read."""
    return f"{event.data_url} ({event.data_samples:,} images)"


def small_dataset(event: SmallDatasetWarning) -> str:
    """What the data, or the samples of an evaluation, are too few for."""
    parts = []
    if event.features is not None:
        sides = [f"{event.compared:,} real ones"] if event.compared <= event.features else []
        sides += [f"{event.generated:,} generated ones"] if event.generated is not None else []
        parts.append(
            f"the distance is taken of {' and '.join(sides)}, not more than its {event.features:,} features, "
            f"so that it lacks rank and says little"
        )
    if event.real_samples is not None:
        parts.append(f"{event.samples:,} are fewer than evaluation.real_samples={event.real_samples}")
    if event.batch_size is not None:
        parts.append(
            f"{event.samples:,} do not fill {event.batches} batches of {event.batch_size}, "
            f"so that a discriminator soon knows them by heart"
        )
    return f"few images: {'; '.join(parts)}"


def ill_health(event: HealthWarning) -> str:
    """A state and where it began, what was seen, and what helps."""
    begin, end = kimg_count(event.kimg), event.until_kimg
    where = f"since {begin} kimg" if end is None else f"from {begin} to {kimg_count(end)} kimg"
    again = f", {event.times} times" if event.times > 1 else ""
    return f"{event.state} {where}{again}: {event.seen}; {event.remedy}"


def floor(distance: float, images: int | None) -> str:
    """The floor and what it is of; without a number of images it is an earlier version's."""
    return f"{number(distance)} ({'two halves of the' if images is None else f'{images:,}'} real images)"


def start(given: bool) -> str:
    """What the generator that a run began with is called."""
    return "as given" if given else "untrained"


def worse_than_start(event: EvaluationResult | Summary) -> str:
    """`, worse than untrained` where the best that a run has trained is not better than what it began with."""
    if event.best is None or event.untrained is None:
        return ""
    sign = -1 if event.higher_is_better else 1
    return f", worse than {start(event.given)}" if sign * event.best > sign * event.untrained else ""


def progress(kimg: float, budget_kimg: float) -> str:
    """`123.4 of 1,000 kimg`."""
    return f"{kimg_count(kimg)} of {kimg_count(budget_kimg)} kimg"


def best(event: EvaluationResult) -> str:
    """The best so far and where it was, or that there is none yet."""
    if event.best is None or event.best_kimg is None:
        return start(event.given)
    return f"best {number(event.best)} at {kimg_count(event.best_kimg)} kimg{worse_than_start(event)}"


def waiting(event: EvaluationResult) -> str:
    """How many evaluations have passed without an improvement, and how many may."""
    if event.patience is None:
        return f"{plural(event.without_improvement, 'evaluation')} without improvement"
    return f"{event.without_improvement} of {plural(event.patience, 'evaluation')} without improvement"


def evaluation(event: EvaluationResult) -> str:
    """The monitored measure, how it compares with the best, and the others."""
    if event.improved:
        compared = f"best so far{worse_than_start(event)}"
    else:
        compared = best(event) if event.best is None else f"{best(event)}, {waiting(event)}"
    more = "".join(f", {name} {number(value)}" for name, value in event.more.items() if not name.endswith("_std"))
    more += "" if event.diversity is None else f", diversity {event.diversity:.2f}"
    return f"{event.metric} {number(event.value)} ({compared}){more}"


def stop_reason(summary: Summary) -> str:
    """Why the run stopped."""
    if summary.reason == "budget":
        return "image budget used up"
    if summary.reason == "time":
        return "time used up, state saved"
    if summary.reason == "interrupted":
        return "interrupted, state saved"
    if summary.reason == "target":
        return "evaluation.target reached"
    if summary.reason != "plateau":
        return f"{summary.reason} (health.stop)"
    times = "evaluation" if summary.without_improvement == 1 else f"{summary.without_improvement} evaluations"
    return f"plateau: no better {summary.metric} in the last {times}"


def way_on(summary: Summary) -> str:
    """What to change in the same command, so that the run goes on."""
    changes = []
    if summary.reason == "plateau":
        evaluations = summary.without_improvement
        changes.append(f"evaluation.patience above {evaluations} (or null)")
    if summary.reason == "target":
        changes.append("another evaluation.target (or null)")
    if summary.reason in get_args(FailureMode):
        changes.append("health.stop=false")
    if summary.kimg >= summary.budget_kimg:
        changes.append(f"training.kimg above {summary.kimg:.10g}")
    return "the same command" + (f" with {' and '.join(changes)}" if changes else "")


def profile(event: ProfileWritten) -> str:
    """A line a part of a step, with its share; then what is not in them, and where the trace is."""
    if not event.steps:
        return "profile: the session had too few steps to record"
    parts = dict(event.milliseconds)
    whole, collective = parts.pop("step"), parts.pop("all-reduce")
    lines = [f"profile of a step, mean of {event.steps}: {whole:.2f} ms, of which"]
    lines += [f"{name:>12} {value:9.2f} ms {value / whole:5.0%}" for name, value in parts.items()]
    if collective > 0:
        lines.append(f"  beside them, all-reduces take {collective:.2f} ms")
    lines.append("  between steps: evaluations and checkpoints, whose shares of the session stand under `time`")
    return "\n".join([*lines, f"trace: {event.folder}/trace.json.gz"])


def connecting(address: str | None) -> str:
    """What happens first under Ray; None is a cluster of this machine's own."""
    return "starting Ray" if address is None else f"connecting to Ray at {address}"
