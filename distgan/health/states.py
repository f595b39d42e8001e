"""The states of ill health that a run can be in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["discriminator overpowers", "mode collapse", "dead generator", "diverged"]


@dataclass(frozen=True)
class Warned:
    """A run is not healthy.

    Attributes:
        step, kimg: when the state first began, in the event when it begins.
        seen: the numbers that show it.
        remedy: what helps, in configuration keys.
        times: how often it has begun.
        until_kimg: where it last ended; None while it goes on.
    """

    step: int
    kimg: float
    state: State
    seen: str
    remedy: str
    times: int = 1
    until_kimg: float | None = None
