"""What a launch gives back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distgan.training.events import Summary


@dataclass(frozen=True)
class Outcome:
    """A run's summary, on the process that has it, and the exit code for the command line.

    finished: `time.monotonic()` when the summary came. sessions: how many there were, more than 1 where workers were
    lost.
    """

    summary: Summary | None
    exit_code: int
    finished: float = 0.0
    sessions: int = 1

    def timed(self, begun: float, now: float) -> Summary | None:
        """The summary with the whole time of a command that began at `begun` and is done `now`.

        What it took beside the session belongs to `start` and `end`.
        """
        if self.summary is None:
            return None
        seconds, run_seconds = dict(self.summary.seconds), self.summary.run_seconds
        beside = max(0.0, now - begun - seconds["total"])
        end = min(beside, now - self.finished)
        start = seconds.pop("start", 0.0) + beside - end
        seconds["start" if self.sessions == 1 else "start and lost sessions"] = round(start, 2)
        seconds |= {"end": round(end, 2), "total": round(seconds["total"] + beside, 2)}
        return replace(self.summary, seconds=seconds, run_seconds=None if run_seconds is None else run_seconds + beside)
