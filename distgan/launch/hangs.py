"""Finds that a group of workers hangs, by the signs of life that each gives (`launch.heartbeat`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# Between two signs of life of a worker.
BEAT_S = 3.0

# Without a beat for so long a process is frozen.
_SILENT_S = 4 * BEAT_S

# Steps last seconds. Other phases may take as long as they like.
_STEP_PHASES = {"", "training", "data wait"}


@dataclass(frozen=True)
class Beat:
    """What a worker says of itself every few seconds.

    Attributes:
        place: `worker 1 on 10.0.0.2`.
        activity: rises with all that it does, waits for unavailable storage included.
        phase: what it does, as in the summary's `seconds`; empty between two phases.
        steps: that it has made. The first one may compile.
        sigterms: how often it was asked to end.
    """

    place: str
    activity: int
    phase: str = ""
    steps: int = 0
    sigterms: int = 0

    @property
    def must_go_on(self) -> bool:
        return self.steps > 0 and self.phase in _STEP_PHASES


class HangWatch:
    """Finds that no worker of a group does anything any more.

    Args:
        limit_s: how long that may last.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self.restart()

    def restart(self) -> None:
        """Forgets the group: the next beat is of another one."""
        self._beats: dict[int, Beat] = {}
        self._times: dict[int, float] = {}
        self._active = self._clock()
        self.hang: str | None = None

    def beat(self, rank: int, beat: Beat) -> bool:
        """Takes a beat. Returns whether the group hangs; `hang` then says which workers, and since when."""
        now = self._clock()
        before = self._beats.get(rank)
        paused = now - max(self._times.values(), default=now) > _SILENT_S  # this process, or the whole machine
        if before is None or before.activity != beat.activity or not beat.must_go_on or paused:
            self._active = now
        self._beats[rank], self._times[rank] = beat, now
        if self.hang is None and now - self._active > self._limit_s:
            self.hang = self._description(now)
        return self.hang is not None

    def _description(self, now: float) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - (now - self._active)))
        silent = [beat.place for rank, beat in sorted(self._beats.items()) if now - self._times[rank] > _SILENT_S]
        if silent:
            return f"{', '.join(silent)}: no answer since {since}"
        reading = {rank for rank, beat in self._beats.items() if beat.phase == "data wait"}
        found = [self._beats[rank] for rank in sorted(reading or self._beats)]
        phase = f", in {found[0].phase}" if found[0].phase else ""
        return f"{', '.join(beat.place for beat in found)}: no progress since {since}{phase}"
