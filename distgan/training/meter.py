"""Where a session's time goes, the means of what it logs, and its summary."""

from __future__ import annotations

import time
from collections import defaultdict
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
from distgan.training.early_stopping import Judgement
from distgan.training.events import StopReason, Summary
from distgan.training.health_advice import warning
from distgan.training.profiling import span
from distgan.training.run_spec import RunSpec
from distgan.training.state import TrainingState


class Meter:
    """Adds up seconds by phase, and terms and images since the last row of metrics.

    Each step's terms stay on the device until the workers meet: a step waits for nothing.

    Attributes:
        last_seconds: how long the phase that ended last took.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._rows: list[_Row] = []
        self._bad_samples = 0
        self._values: dict[str, list[float]] = defaultdict(list)
        self._images = self._all_images = 0
        self._training_at_take = 0.0
        self.last_seconds = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time inside as `name`'s; phases may nest, and each counts its own."""
        begin = time.perf_counter()
        with span(name):
            yield
        self.last_seconds = time.perf_counter() - begin
        self._seconds[name] += self.last_seconds

    def end_start(self) -> None:
        """Counts what has passed since the session began, and is no other phase's, as `start`."""
        self._seconds["start"] = self.elapsed() - sum(self._seconds.values())

    def count(self, terms: dict[str, Tensor], images: int, groups: Mapping[str, int] | None = None) -> None:
        """Takes a step's terms, this worker's shares of their means, and its real images.

        A step need not have all terms. `groups` says how many of this worker's groups had each; by default all.
        """
        names = tuple(sorted(terms))
        values = torch.stack([terms[name] for name in names])
        self._rows.append(_Row(names, values, [1 if groups is None else groups[name] for name in names]))
        self._images += images
        self._all_images += images

    def count_bad_samples(self, count: int) -> None:
        """Takes how many of this worker's samples turned out bad."""
        self._bad_samples += count

    def meet(self, distributed: Distributed) -> tuple[list[dict[str, float]], int]:
        """The terms of each step since the last call and the bad samples in them, over all workers.

        All ranks meet here, and get the same; nothing happens where there was no step.
        """
        if not self._rows:
            return [], 0
        names = sorted(set().union(*distributed.gather({name for row in self._rows for name in row.names})))
        values, groups = torch.stack([row.spread(names) for row in self._rows], dim=1)
        own = torch.cat([values.flatten(), groups.flatten(), values.new_tensor([self._bad_samples])])
        *numbers, bad_samples = _sum_in_order(own, distributed).tolist()
        half, width = len(numbers) // 2, len(names)
        terms = [
            _means(names, numbers[start : start + width], numbers[half + start : half + start + width])
            for start in range(0, half, width)
        ]
        for row in terms:
            for name, value in row.items():
                self._values[name].append(value)
        self._rows, self._bad_samples = [], 0
        return terms, round(bad_samples)

    def take(self) -> tuple[dict[str, float], float]:
        """Means over the steps since the last call, which the workers have met after; and images a second in them.

        A term's mean is over the steps that had it; one that none had is absent.
        """
        assert not self._rows, "the workers have not met"
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        elapsed = self._seconds["training"] - self._training_at_take
        rate = self._images / elapsed if elapsed > 0 else 0.0
        self._training_at_take = self._seconds["training"]
        self._values.clear()
        self._images = 0
        return means, rate

    def elapsed(self) -> float:
        """Seconds since the session began."""
        return time.perf_counter() - self._begun

    def mean_images_per_second(self) -> float:
        """Real images a second of training time, all workers together."""
        training = self._seconds["training"]
        return self._all_images / training if training > 0 else 0.0

    def seconds(self) -> dict[str, float]:
        """Seconds by phase; `total` since the session began. `data wait` is a part of `training`."""
        return {**{name: round(value, 2) for name, value in self._seconds.items()}, "total": round(self.elapsed(), 2)}


class _Row(NamedTuple):
    """A step's terms, in the order of their names, and how many of this worker's groups had each."""

    names: tuple[str, ...]
    values: Tensor
    groups: list[int]

    def spread(self, names: Sequence[str]) -> Tensor:
        """Values and groups (2, n), a column for each of these names, 0 where this step has no such term."""
        both = torch.stack([self.values, self.values.new_tensor(self.groups)])
        if len(names) == len(self.names):
            return both
        wide = both.new_zeros(2, len(names))
        wide[:, [names.index(name) for name in self.names]] = both
        return wide


def _means(names: Sequence[str], sums: Sequence[float], groups: Sequence[float]) -> dict[str, float]:
    """The mean of each term over the groups that had it, from sums of shares of the mean over all groups."""
    every = max(groups)
    return {
        name: total if had == every else total * every / had
        for name, total, had in zip(names, sums, groups, strict=True)
        if had
    }


def _sum_in_order(own: Tensor, distributed: Distributed) -> Tensor:
    """The sum over all workers of a vector (n,), each number the same whatever else is in the vector.

    An all-reduce alone adds up a number in an order that depends on its place. Here it adds zeros to each worker's
    row, which changes nothing, and the rows are added up in the order of ranks.
    """
    if distributed.size == 1:
        return own
    rows = own.new_zeros(distributed.size, len(own))
    rows[distributed.rank] = own
    distributed.all_reduce(rows)
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


def summarise(
    job: RunSpec,
    state: TrainingState,
    meter: Meter,
    judgement: Judgement,
    reason: StopReason,
    *,
    metric: str,
    real: RealStatistics,
    best_checkpoint: str | None,
    resumed_at_kimg: float,
) -> Summary:
    """What the run has come to.

    The checkpoint of its last step is there; `real` has the floor of the Fréchet distance, `best_checkpoint` is the
    best one that is kept.
    """
    config, progress = job.config, state.progress
    best, latest, seconds = judgement.best, judgement.latest, meter.seconds()
    has_floor = config.evaluation.monitor == "frechet"
    return Summary(
        name=job.name,
        metric=metric,
        reason=reason,
        kimg=progress.kimg,
        budget_kimg=config.training.kimg,
        steps=progress.step,
        untrained=judgement.untrained,
        best=best.value if best else None,
        best_kimg=best.kimg if best else None,
        latest=latest.value if latest else None,
        latest_kimg=latest.kimg if latest else None,
        floor=real.floor if has_floor else None,
        floor_images=real.floor_images if has_floor else None,
        without_improvement=judgement.without_improvement,
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
        higher_is_better=higher_is_better(config.evaluation.monitor),
        health=[warning(ill, spell, config) for ill, spell in progress.health.episodes.items()],
    )
