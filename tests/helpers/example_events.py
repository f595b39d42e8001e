"""Events of a run as a tracker receives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from distgan.training.events import EvaluationResult, StepMetrics

METRIC = "fd_lite0_2k"


def trained(step: int, generator: float = 0.8) -> StepMetrics:
    return StepMetrics(step, step / 10, 415.0, {"loss/generator": generator, "loss/discriminator": 1.2})


def evaluated(step: int, distance: float, **changes: Any) -> EvaluationResult:
    event = EvaluationResult(step, step / 10, METRIC, distance, distance, step / 10, True, 0, 5, 18.0)
    return replace(event, **changes)


def images(count: int = 5, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
