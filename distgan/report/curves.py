"""The curves of runs against kimg, as figures that the page's script draws."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from distgan.report.run_data import RunData, amount
from distgan.tracking.formatting import kimg_count, number
from distgan.tracking.jsonl import Row

# Points of all runs together in a curve; of one run at least `_FEWEST_POINTS`.
_MOST_POINTS, _FEWEST_POINTS = 2000, 100

# Of one prefix, and metrics.
_MOST_NAMES = 20

_WIDE = 4

# A floor so many times below the curve would flatten it; the summary has its value.
_FAR = 5

_GROUPS = {
    "loss/": ("Losses", "loss"),
    "accuracy/": ("Accuracy of the discriminator", "accuracy"),
    "penalty/": ("Penalties", "penalty"),
    "gradients/": ("Gradient norms", "gradient norm"),
    "logits/": ("Logits", "mean logit"),
    "learning_rate/": ("Learning rates", "learning rate"),
    "schedule/": ("Schedules", "value"),
    "overfitting/": ("Gap between training and held-out images", "gap"),
    "augmentation/": ("Augmentation, adapted", "probability"),
}

_MACHINE_GROUPS = {"memory/": ("Peak memory of rank 0", "MB")}

_SINGLE = {
    "images_per_second": ("Throughput", "images/s"),
    "seconds/data_wait": ("Wait of a step for data", "seconds"),
    "data/bytes_read": ("Read of the data set by all workers", "bytes"),
    "data/memory_hits": ("Samples from memory", "share"),
    "data/cache_hits": ("Blocks from the cache folder", "share"),
    "scale/workers": ("Workers", "workers"),
    "storage/retries": ("Repeated storage requests", "requests"),
    "checkpoint/skipped": ("Checkpoints left out", "checkpoints"),
}

# Shown where they never change, too.
_MEASURED = ("images_per_second", "seconds/data_wait", "data/memory_hits", "data/cache_hits")

# Columns of an evaluation that are no metrics.
_NO_METRICS = (
    *("event", "step", "kimg", "metric", "value", "best", "best_kimg", "improved", "without_improvement", "patience"),
    *("seconds", "reported_step", "higher_is_better", "diversity", "untrained", "given", "distance", "floor"),
    "time",
)


@dataclass(frozen=True)
class Trace:
    """A line of a figure, or a mark.

    Attributes:
        run: index of its run.
        term: what it is of several in the figure, as `generator`; empty for the only one.
        kind: `line`, `best` (a mark) or `floor` (a level).
    """

    run: int
    term: str
    x: list[float]
    y: list[float | None]
    kind: str = "line"


@dataclass
class Figure:
    """Curves with one vertical axis.

    Attributes:
        text: what it shows, in words.
        log: whether the vertical axis is logarithmic.
    """

    title: str
    unit: str
    text: str = ""
    log: bool = False
    traces: list[Trace] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(runs: Sequence[RunData]) -> list[Figure]:
    """Distance, losses, accuracy, penalties, gradient norms, logits, throughput and so on, as far as runs have them."""
    return [
        *_distances(runs),
        *_groups(runs, _GROUPS),
        *_singles(runs),
        *_groups(runs, _MACHINE_GROUPS),
        *_further(runs),
    ]


def thinning(runs: Sequence[RunData]) -> str:
    """A sentence on curves with fewer points than rows; empty where all are shown."""
    most = max((_bucket(run, len(runs)) for run in runs), default=1)
    return f"Points of long runs are means of up to {most} rows." if most > 1 else ""


def _distances(runs: Sequence[RunData]) -> Iterator[Figure]:
    metrics = dict.fromkeys(f"{row.get('metric')}" for run in runs for row in run.of("evaluation"))
    for metric in list(metrics)[:_MOST_NAMES]:
        figure, higher, texts = Figure(metric, metric), False, []
        for place, run in enumerate(runs):
            rows = [row for row in run.of("evaluation") if f"{row.get('metric')}" == metric]
            trace = _trace(place, "", rows, "value")
            if not any(value is not None for value in trace.y):
                continue
            figure.traces.append(trace)
            higher = rows[-1].get("higher_is_better") is True
            best, at = amount(rows[-1], "best"), amount(rows[-1], "best_kimg")
            if best is not None and at is not None:
                figure.traces.append(Trace(place, "best", [at], [best], "best"))
                texts.append(f"{run.name}: best {number(best)} at {kimg_count(at)} kimg")
            if run.floor is not None and _has_floor(run, metric, trace):
                figure.traces.append(Trace(place, "floor", [0.0, run.kimg], [run.floor, run.floor], "floor"))
        if figure.traces:
            figure.title = f"{metric} ({'higher' if higher else 'lower'} is better)"
            figure.text, figure.log = "; ".join(texts), _is_wide(figure.traces)
            yield figure


def _groups(runs: Sequence[RunData], groups: Mapping[str, tuple[str, str]]) -> Iterator[Figure]:
    for prefix, (title, unit) in groups.items():
        figure = Figure(title, unit)
        for place, rows in _steps(runs):
            terms = sorted({key for row in rows for key in row if key.startswith(prefix)})[:_MOST_NAMES]
            figure.traces += [_trace(place, term.removeprefix(prefix), rows, term) for term in terms]
        if _is_told(figure, lambda values: bool(values)):
            yield figure


def _singles(runs: Sequence[RunData]) -> Iterator[Figure]:
    for key, (title, unit) in _SINGLE.items():
        figure = Figure(title, unit)
        figure.traces = [_trace(place, "", rows, key) for place, rows in _steps(runs)]
        counts = key not in _MEASURED
        if _is_told(figure, lambda values, counts=counts: len(set(values)) > counts):  # type: ignore[misc]
            yield figure


def _further(runs: Sequence[RunData]) -> Iterator[Figure]:
    rows = [(place, run.of("evaluation")) for place, run in enumerate(runs)]
    keys = dict.fromkeys(key for _, some in rows for row in some for key in row if _is_metric(key))
    for key in [*list(keys)[:_MOST_NAMES], "diversity"]:
        unit = "relative to real images" if key == "diversity" else key
        figure = Figure(key.capitalize() if key == "diversity" else key, unit)
        figure.traces = [_trace(place, "", some, key) for place, some in rows]
        if _is_told(figure, lambda values: bool(values)):
            yield figure


def _is_metric(key: str) -> bool:
    return key not in _NO_METRICS and "/" not in key and not key.endswith("_std")


def _is_told(figure: Figure, wanted: Callable[[list[float]], bool]) -> bool:
    """Drops empty traces and says whether the rest is worth a figure."""
    figure.traces = [trace for trace in figure.traces if any(value is not None for value in trace.y)]
    return wanted([value for trace in figure.traces for value in trace.y if value is not None])


def _steps(runs: Sequence[RunData]) -> Iterator[tuple[int, list[Row]]]:
    for place, run in enumerate(runs):
        yield place, _thinned(run.of("step"), _bucket(run, len(runs)))


def _bucket(run: RunData, runs: int) -> int:
    """Rows of a run that a point stands for."""
    return -(-len(run.of("step")) // max(_FEWEST_POINTS, _MOST_POINTS // runs)) or 1


def _thinned(rows: list[Row], size: int) -> list[Row]:
    """Means of `size` rows in a row, each at the kimg of its last one."""
    if size == 1:
        return rows
    found = []
    for begin in range(0, len(rows), size):
        some = rows[begin : begin + size]
        row: Row = {}
        for key in dict.fromkeys(key for one in some for key in one):
            values = [value for one in some if (value := amount(one, key)) is not None]
            row[key] = statistics.fmean(values) if values else None
        found.append(row | {"kimg": some[-1]["kimg"]})
    return found


def _trace(run: int, term: str, rows: Sequence[Row], key: str) -> Trace:
    return Trace(
        run, term, [_short(amount(row, "kimg")) or 0.0 for row in rows], [_short(amount(r, key)) for r in rows]
    )


def _short(value: float | None) -> float | None:
    """Six digits, which a figure does not show more of."""
    return None if value is None else float(f"{value:.6g}")


def _has_floor(run: RunData, metric: str, trace: Trace) -> bool:
    """Whether the floor is of this metric, and so near that an axis with it still shows the curve."""
    if run.floor is None or run.summary is None or run.summary.metric != metric:
        return False
    return run.floor > min(value for value in trace.y if value is not None) / _FAR


def _is_wide(traces: Sequence[Trace]) -> bool:
    values = [value for trace in traces for value in trace.y if value is not None]
    return min(values) > 0 and max(values) > _WIDE * min(values)
