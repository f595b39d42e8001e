"""Where a session's time goes, and the means of what it logs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from distgan.training.profiling import span
from distgan.training.world import World


class Meter:
    """Adds up seconds by phase, and terms and images since the last row of metrics.

    Attributes:
        steps: steps of this session.
        last_seconds: how long the phase that ended last took.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._terms: dict[str, Tensor] = {}
        self.steps = self._steps = self._images = self._all_images = 0
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

    def count(self, terms: dict[str, Tensor], images: int) -> None:
        """Takes a step's terms, this worker's shares of their means, and its real images."""
        for name, value in terms.items():
            self._terms[name] = self._terms[name] + value if name in self._terms else value
        self.steps += 1
        self._steps += 1
        self._images += images
        self._all_images += images

    def take(self, world: World) -> tuple[dict[str, float], float]:
        """Means over the steps since the last call, and images a second in them; all ranks meet here."""
        names = sorted(self._terms)
        means = world.all_reduce(torch.stack([self._terms[name] for name in names])) / self._steps
        elapsed = self._seconds["training"] - self._training_at_take
        rate = self._images / elapsed if elapsed > 0 else 0.0
        self._training_at_take = self._seconds["training"]
        self._terms, self._steps, self._images = {}, 0, 0
        return dict(zip(names, means.tolist(), strict=True)), rate

    def mean_images_per_second(self) -> float:
        """Real images a second of training time, all workers together."""
        training = self._seconds["training"]
        return self._all_images / training if training > 0 else 0.0

    def seconds(self) -> dict[str, float]:
        """Seconds by phase; `total` since the session began. `data wait` is a part of `training`."""
        total = time.perf_counter() - self._begun
        return {**{name: round(value, 2) for name, value in self._seconds.items()}, "total": round(total, 2)}
