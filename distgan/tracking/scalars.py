"""The numbers of an event by name, and their place on the axis: what every tracker of curves shows."""

from __future__ import annotations

import math

from distgan.training.events import EvaluationResult, Event, StepMetrics


def scalars(event: Event) -> dict[str, float]:
    """The finite numbers of a step or an evaluation by name; empty for other events.

    Terms of losses, learning rates, schedules, time and memory have their own names. The monitored metric has its best
    value so far and, where it is known, its floor: the distance of real images to real ones.
    """
    found: dict[str, float | None] = {}
    if isinstance(event, StepMetrics):
        found = {**event.terms, **event.measured, "progress/images_per_second": event.images_per_second}
    elif isinstance(event, EvaluationResult):
        name = f"distance/{event.metric}"
        found = {name: event.value, f"{name}_best": event.best, f"{name}_floor": event.floor}
        found |= {f"measure/{each}": value for each, value in event.more.items()}
        found["measure/diversity"] = event.diversity
    values = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
    return values | {"progress/kimg": event.kimg} if isinstance(event, StepMetrics | EvaluationResult) else values


def images_at(kimg: float) -> int:
    """The place on an axis of whole numbers: real images, 1,000 for a kimg."""
    return round(1000 * kimg)
