"""A tracker of your own: losses and metrics as metrics.csv in the run's folder, for a spreadsheet.

    distgan train quickstart data.url=URL "tracking=[tensorboard, samples, curves, csv_tracker:CsvTracker]"

Python must find this file: run the command in its folder, or name the folder in PYTHONPATH.
"""

from __future__ import annotations

import csv
import io

from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import EvaluationResult, Event, StepMetrics

FILE, HEADER = "metrics.csv", ["step", "kimg", "name", "value"]


class CsvTracker(Tracker):
    """A row for each number. A resumed run drops the rows of steps that it repeats."""

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        earlier = csv.reader((run.read(FILE) or b"").decode().splitlines()[1:])
        self.rows = [row for row in earlier if int(row[0]) < run.first_step]

    def event(self, event: Event) -> None:
        if isinstance(event, StepMetrics):
            numbers = {**event.terms, "images_per_second": event.images_per_second}
        elif isinstance(event, EvaluationResult):
            numbers = {event.metric: event.value, **event.more}
        else:
            return
        self.rows += [[str(event.step), f"{event.kimg:g}", name, repr(value)] for name, value in numbers.items()]

    def flush(self) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEADER, *self.rows])
        self.run.write(FILE, text.getvalue().encode())
