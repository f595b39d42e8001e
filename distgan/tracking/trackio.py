"""The tracker `trackio`: a local or hosted dashboard, by its own variables (`TRACKIO_DIR`, `TRACKIO_SPACE_ID`, …)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from distgan.tracking.service import Point, ServiceTracker
from distgan.tracking.tracker import TrackedRun
from distgan.training.events import RunStarted


class TrackioTracker(ServiceTracker):
    """Sends numbers, sample grids, curves and the configuration to a run of trackio.

    Its steps are whole numbers: real images, 1,000 for a kimg.
    """

    name, title, package = "trackio", "trackio", "trackio"

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._run: Any = None

    def open(self, started: RunStarted, configuration: Mapping[str, Any]) -> int | None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "distgan"),
            name=f"{started.name}-{self.id}",
            config=dict(configuration),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return None

    def send(self, point: Point) -> None:
        import trackio

        pictures = {name: trackio.Image(picture) for name, picture in point.pictures.items()}
        self._run.log({**point.values, **pictures, "progress/kimg": point.kimg}, step=point.images)

    def finish(self) -> None:
        self._run.finish()
