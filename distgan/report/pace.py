"""How long a run still takes."""

from __future__ import annotations

from collections import deque

_PERIODS = 3


class Pace:
    """Time left from the budget and the recent speed, with evaluations counted in.

    The speed is that over the last three whole periods from the end of one evaluation to the end of the next
    (fewer, where there are fewer), and the time left then counts down to the next evaluation. Before there is
    a whole period, the speed is that since the beginning of the session or since its first evaluation.
    """

    def __init__(self, start_kimg: float, budget_kimg: float, now: float) -> None:
        self._budget = budget_kimg
        self._marks = deque([(now, start_kimg)], maxlen=_PERIODS + 1)
        self._last = (now, start_kimg)

    def trained(self, kimg: float, now: float) -> None:
        """The run has reached `kimg` at the time `now` in seconds."""
        self._last = (now, kimg)

    def evaluated(self, kimg: float, now: float) -> None:
        """An evaluation at `kimg` has ended at the time `now`."""
        if self._marks[-1][1] == kimg:
            self._marks.pop()
        self._marks.append((now, kimg))
        self._last = (now, kimg)

    def seconds_left(self, now: float) -> float | None:
        """Seconds from `now` to the end of the budget, or None before any progress."""
        first_time, first_kimg = self._marks[0]
        time, kimg = self._marks[-1] if len(self._marks) > 1 else self._last
        if kimg <= first_kimg or time <= first_time:
            return None
        speed = (kimg - first_kimg) / (time - first_time)
        return max(0.0, (self._budget - kimg) / speed - (now - time))
