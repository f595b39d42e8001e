"""Objectives, each in a file of its own, and the base class of custom ones."""

from distgan.config.schedule import Scheduled
from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.losses.penalties import (
    Discriminator,
    Penalty,
    gradient_norms,
    gradient_penalty,
    image_gradients,
    r1_penalty,
)

__all__ = [
    "Context",
    "Discriminator",
    "Objective",
    "Penalty",
    "Scheduled",
    "gradient_norms",
    "gradient_penalty",
    "image_gradients",
    "r1_penalty",
]
