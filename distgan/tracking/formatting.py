"""Numbers and events of a run as text."""

from __future__ import annotations

import math
from typing import get_args

from rich import filesize

from distgan.text import plural
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


def losses(event: StepMetrics) -> dict[str, float]:
    """The loss terms by their short names."""
    return {name.removeprefix("loss/"): v for name, v in event.terms.items() if name.startswith("loss/")}


def overfitting(event: StepMetrics) -> dict[str, float]:
    """The gap to held-out images, and the adapted probability of augmentations, where there are any."""
    names = {"gap": "overfitting/gap", "augmentation": "augmentation/probability"}
    return {short: event.terms[name] for short, name in names.items() if name in event.terms}


def reading(event: StepMetrics, bytes_read: float) -> list[str]:
    """The wait of a step for data, the bytes read so far, the shares that caches had, retries; as far as known."""
    found, parts = event.measured, []
    if "seconds/data_wait" in found:
        parts.append(f"{1000 * found['seconds/data_wait']:.1f} ms a step")
    if "data/bytes_read" in found:
        parts.append(f"{filesize.decimal(round(bytes_read))} read")
    if "data/memory_hits" in found:
        parts.append(f"{found['data/memory_hits']:.0%} from memory")
    if "data/cache_hits" in found:
        parts.append(f"{found['data/cache_hits']:.0%} from the cache")
    if "storage/retries" in event.terms:
        parts.append(plural(round(event.terms["storage/retries"]), "retry", "retries"))
    return parts


def workers(event: RunStarted) -> str:
    """Workers, threads, device and batch."""
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
    """The data set and its size."""
    return f"{event.data_url} ({plural(event.data_samples, 'image')})"


def small_dataset(event: SmallDatasetWarning) -> str:
    """A sentence on what the data set, or the samples of an evaluation, are too few for."""
    parts = []
    if event.features is not None:
        sides = [f"{event.compared:,} real ones"] if event.compared <= event.features else []
        sides += [f"{event.generated:,} generated ones"] if event.generated is not None else []
        parts.append(
            f"the distance uses {' and '.join(sides)}, not more than its {event.features:,} features: its covariance "
            f"lacks rank, and the value is unreliable"
        )
    if event.real_samples is not None:
        parts.append(f"{event.samples:,} are fewer than evaluation.real_samples={event.real_samples}")
    if event.batch_size is not None:
        parts.append(
            f"{event.samples:,} do not fill {event.batches} batches of {event.batch_size}, "
            f"which a discriminator soon memorizes"
        )
    return f"few images: {'; '.join(parts)}"


def health_warning(event: HealthWarning) -> str:
    """The failure mode and when it began, the evidence, and the advice."""
    begin, end = kimg_count(event.kimg), event.until_kimg
    where = f"since {begin} kimg" if end is None else f"from {begin} to {kimg_count(end)} kimg"
    again = f", {event.times} times" if event.times > 1 else ""
    return f"{event.state} {where}{again}: {event.seen}; {event.remedy}"


def floor(distance: float, images: int | None) -> str:
    """The floor and the number of real images that it is of; None in files of earlier versions."""
    return f"{number(distance)} ({'two halves of the' if images is None else f'{images:,}'} real images)"


def start_name(given: bool) -> str:
    """The name of the generator that a run began with; `given`: it had the weights of another run."""
    return "as given" if given else "untrained"


def worse_than_start(event: EvaluationResult | Summary) -> str:
    """`, worse than untrained` where the best trained generator is worse than the one that the run began with."""
    if event.best is None or event.untrained is None:
        return ""
    sign = -1 if event.higher_is_better else 1
    return f", worse than {start_name(event.given)}" if sign * event.best > sign * event.untrained else ""


def progress(kimg: float, budget_kimg: float) -> str:
    """`123.4 of 1,000 kimg`."""
    return f"{kimg_count(kimg)} of {kimg_count(budget_kimg)} kimg"


def best(event: EvaluationResult) -> str:
    """The best value so far and its kimg, or the name of the start where nothing is trained."""
    if event.best is None or event.best_kimg is None:
        return start_name(event.given)
    return f"best {number(event.best)} at {kimg_count(event.best_kimg)} kimg{worse_than_start(event)}"


def patience(event: EvaluationResult) -> str:
    """Evaluations without improvement, of those that `evaluation.patience` allows."""
    if event.patience is None:
        return f"{plural(event.without_improvement, 'evaluation')} without improvement"
    return f"{event.without_improvement} of {plural(event.patience, 'evaluation')} without improvement"


def evaluation(event: EvaluationResult) -> str:
    """The monitored metric, its comparison with the best, the other metrics and diversity."""
    if event.improved:
        compared = f"best so far{worse_than_start(event)}"
    else:
        compared = best(event) if event.best is None else f"{best(event)}, {patience(event)}"
    more = "".join(f", {name} {number(value)}" for name, value in event.more.items() if not name.endswith("_std"))
    more += "" if event.diversity is None else f", diversity {event.diversity:.2f}"
    return f"{event.metric} {number(event.value)} ({compared}){more}"


def stop_reason(summary: Summary) -> str:
    """The reason for the end of a run."""
    if summary.reason == "budget":
        return "image budget reached"
    if summary.reason == "time":
        return "time limit reached, state saved"
    if summary.reason == "interrupted":
        return "interrupted, state saved"
    if summary.reason == "target":
        return "evaluation.target reached"
    if summary.reason != "plateau":
        return f"{summary.reason} (health.stop)"
    times = "evaluation" if summary.without_improvement == 1 else f"{summary.without_improvement} evaluations"
    return f"plateau: no better {summary.metric} in the last {times}"


def next_command(summary: Summary) -> str:
    """The changes to the command with which the run continues."""
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
    """A line for each part of a step with its share, then all-reduces and the place of the trace."""
    if not event.steps:
        return "profile: the session had too few steps to record"
    parts = dict(event.milliseconds)
    whole, collective = parts.pop("step"), parts.pop("all-reduce")
    lines = [f"profile of a step, mean of {event.steps}: {whole:.2f} ms, of which"]
    lines += [f"{name:>12} {value:9.2f} ms {value / whole:5.0%}" for name, value in parts.items()]
    if collective > 0:
        lines.append(f"  in parallel, all-reduces take {collective:.2f} ms")
    lines.append("  evaluations and checkpoints come between steps: see `time` in the summary")
    return "\n".join([*lines, f"trace: {event.folder}/trace.json.gz"])


def connecting(address: str | None) -> str:
    """The first message under Ray; without an address it starts on this machine."""
    return "starting Ray" if address is None else f"connecting to Ray at {address}"
