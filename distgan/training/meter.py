"""Seconds by phase, means of the metrics of steps, and the summary of a run."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

import distgan
from distgan.distributed import Distributed
from distgan.evaluation.metrics.registry import higher_is_better
from distgan.evaluation.reference_files import RealStatistics
from distgan.training.checkpoints import checkpoint_name
from distgan.training.early_stopping import EarlyStopping
from distgan.training.events import StopReason, Summary
from distgan.training.health_advice import warning
from distgan.training.profiling import span
from distgan.training.run_spec import RunSpec
from distgan.training.state import TrainingState


class Meter:
    """Accumulates seconds by phase, and the metrics and images of steps.

    The metrics of a step stay on the device until `sync_metrics`: no step waits for the device or other workers.

    Attributes:
        last_seconds: duration of the phase that ended last.
        activity: rises whenever a phase begins or ends.
        steps: of this session.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._rows: list[_Row] = []
        self._counts: Counter[str] = Counter()  # of this worker, since the last `sync_metrics`
        self._all_counts: Counter[str] = Counter()  # of all workers, since the last `take`
        self._values: dict[str, list[float]] = defaultdict(list)
        self._images = self._all_images = 0
        self._taken = (0.0, 0.0, 0)
        self.last_seconds = 0.0
        self.activity = self.steps = 0
        self._phases: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a phase. Phases may nest; each counts its whole duration."""
        begin = time.perf_counter()
        self._phases.append(name)
        self.activity += 1
        try:
            with span(name):
                yield
        finally:
            self._phases.pop()
            self.activity += 1
        self.last_seconds = time.perf_counter() - begin
        self._seconds[name] += self.last_seconds

    @property
    def current_phase(self) -> str:
        """The innermost phase now; empty between phases. Other threads may ask."""
        return "".join(self._phases[-1:])

    def end_start(self) -> None:
        """Counts the time since the session began that no other phase has, as `start`."""
        self._seconds["start"] = self.elapsed() - sum(self._seconds.values())

    def add_step(self, metrics: dict[str, Tensor], images: int, groups: Mapping[str, int] | None = None) -> None:
        """Adds a step: this worker's shares of the mean of each metric, and the number of real images.

        A step need not have every metric. `groups` is how many of this worker's groups had each; by default all.
        """
        names = tuple(sorted(metrics))
        values = torch.stack([metrics[name] for name in names])
        self._rows.append(_Row(names, values, [1 if groups is None else groups[name] for name in names]))
        self._images += images
        self._all_images += images
        self.steps += 1

    def count(self, **counts: int) -> None:
        """Adds to this worker's counts, as that of bad samples, by name."""
        self._counts.update(counts)

    def sync_metrics(self, distributed: Distributed) -> tuple[list[dict[str, float]], Counter[str]]:
        """All-reduces the metrics of each step since the last call, and sums the counts. Collective.

        Every rank gets the same. Without a step in between, nothing is communicated, and counts wait for the next call.
        """
        if not self._rows:
            return [], Counter()
        of_workers = distributed.gather(({name for row in self._rows for name in row.names}, self._counts))
        names, counts = sorted(set().union(*(some for some, _ in of_workers))), Counter[str]()
        for _, each in of_workers:
            counts.update(each)
        values, groups = torch.stack([row.spread(names) for row in self._rows], dim=1)
        numbers = _sum_in_order(torch.cat([values.flatten(), groups.flatten()]), distributed).tolist()
        half, width = len(numbers) // 2, len(names)
        steps = [
            _means(names, numbers[start : start + width], numbers[half + start : half + start + width])
            for start in range(0, half, width)
        ]
        for row in steps:
            for name, value in row.items():
                self._values[name].append(value)
        self._rows, self._counts = [], Counter()
        self._all_counts.update(counts)
        return steps, counts

    def take(self) -> tuple[dict[str, float], float, float, Counter[str]]:
        """Means of the synchronized metrics, images per second, seconds of data wait and counts since the last call.

        The mean of a metric is over the steps that have it, the images are those per second of training time, the
        wait is that of a step on this worker, and the counts are of all workers.
        """
        assert not self._rows, "sync_metrics comes first"
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        training, waiting, steps = self._seconds["training"], self._seconds["data wait"], self.steps
        before = self._taken
        elapsed = training - before[0]
        rate = self._images / elapsed if elapsed > 0 else 0.0
        wait = (waiting - before[1]) / max(1, steps - before[2])
        self._taken = (training, waiting, steps)
        counts, self._all_counts = self._all_counts, Counter()
        self._values.clear()
        self._images = 0
        return means, rate, wait, counts

    def elapsed(self) -> float:
        """Seconds since the session began."""
        return time.perf_counter() - self._start

    def mean_images_per_second(self) -> float:
        """Real images per second of training time, of all workers together."""
        training = self._seconds["training"]
        return self._all_images / training if training > 0 else 0.0

    def seconds(self) -> dict[str, float]:
        """Seconds by phase, and `total` since the session began. `data wait` is a part of `training`."""
        return {**{name: round(value, 2) for name, value in self._seconds.items()}, "total": round(self.elapsed(), 2)}


class _Row(NamedTuple):
    """The metrics of a step, sorted by name, and how many of this worker's groups had each."""

    names: tuple[str, ...]
    values: Tensor
    groups: list[int]

    def spread(self, names: Sequence[str]) -> Tensor:
        """Values and groups (2, n), a column per name; 0 where this step has no such metric."""
        both = torch.stack([self.values, self.values.new_tensor(self.groups)])
        if len(names) == len(self.names):
            return both
        wide = both.new_zeros(2, len(names))
        wide[:, [names.index(name) for name in self.names]] = both
        return wide


def _means(names: Sequence[str], sums: Sequence[float], groups: Sequence[float]) -> dict[str, float]:
    """The mean of each metric over the groups that had it. The sums are of means over all groups."""
    every = max(groups)
    return {
        name: total if had == every else total * every / had
        for name, total, had in zip(names, sums, groups, strict=True)
        if had
    }


def _sum_in_order(local: Tensor, distributed: Distributed) -> Tensor:
    """The sum over all workers of a vector (n,), in the order of ranks.

    A plain all-reduce adds in an order that depends on the position in the vector. Here it only gathers: each worker
    fills its own row of zeros, and the rows are then added one after another.
    """
    if distributed.size == 1:
        return local
    rows = local.new_zeros(distributed.size, len(local))
    rows[distributed.rank] = local
    distributed.all_reduce(rows)
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


def summarize(
    spec: RunSpec,
    state: TrainingState,
    meter: Meter,
    status: EarlyStopping,
    reason: StopReason,
    *,
    metric: str,
    real: RealStatistics,
    best_checkpoint: str | None,
    resumed_at_kimg: float,
) -> Summary:
    """The summary of a run whose last checkpoint is written; `metric` is the monitored one as reports call it."""
    config, progress = spec.config, state.progress
    monitor, seconds = config.evaluation.monitor, meter.seconds()
    has_floor = monitor == "frechet"
    return Summary(
        name=spec.name,
        metric=metric,
        reason=reason,
        kimg=progress.kimg,
        budget_kimg=config.training.kimg,
        steps=progress.step,
        untrained=status.untrained,
        best=status.best.value(monitor) if status.best else None,
        best_kimg=status.best.kimg if status.best else None,
        latest=status.latest.value(monitor) if status.latest else None,
        latest_kimg=status.latest.kimg if status.latest else None,
        floor=real.floor if has_floor else None,
        floor_images=real.floor_images if has_floor else None,
        without_improvement=status.without_improvement,
        best_checkpoint=best_checkpoint,
        last_checkpoint=checkpoint_name(progress.step),
        workers=state.workers,
        resumed_at_kimg=resumed_at_kimg,
        images_per_second=meter.mean_images_per_second(),
        seconds=seconds,
        run_seconds=state.run_seconds(seconds["total"]),
        bad_samples=progress.bad_samples if config.data.bad_samples == "skip" else None,
        distgan=distgan.__version__,
        given=progress.given,
        higher_is_better=higher_is_better(monitor),
        health=[warning(mode, episode, config) for mode, episode in progress.health.episodes.items()],
    ).with_goodput(seconds.get("training", 0.0), seconds["total"])
