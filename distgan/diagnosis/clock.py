"""How far another clock is from ours, from questions and answers, as network time protocols do it."""

from __future__ import annotations

import time
from collections.abc import Callable

from distgan.diagnosis.facts import Clock


def compare_clocks(ask: Callable[[], float], exchanges: int = 8) -> Clock:
    """`ask` returns the other's time in seconds since 1970.

    Taken from the fastest exchange: its answer was given somewhere between question and answer here, so the middle is
    wrong by half the round trip at most (Mills 1991, section 3).
    """
    found = []
    for _ in range(exchanges):
        began, ours = time.perf_counter(), time.time()
        theirs = ask()
        round_trip = time.perf_counter() - began
        found.append(Clock(theirs - (ours + round_trip / 2), round_trip / 2, round_trip))
    return min(found, key=lambda clock: clock.round_trip)
