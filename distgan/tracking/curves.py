"""The tracker `curves`: losses and distance as `curves.png` at the end of a run."""

from __future__ import annotations

from distgan.tracking.jsonl import read_rows
from distgan.tracking.record import METRICS
from distgan.tracking.tracker import Tracker
from distgan.training.events import Event, RunFinished


class CurvesTracker(Tracker):
    """Draws the rows of `metrics.jsonl`, which takes about a second."""

    def event(self, event: Event) -> None:
        if isinstance(event, RunFinished) and not self.run.has_ended_before(event.summary):
            from distgan.tracking.plots import draw_curves  # matplotlib is slow to import

            rows = read_rows(self.run.folder / METRICS)
            draw_curves(rows, self.run.folder / "curves.png", title=event.summary.name, floor=event.summary.floor)
