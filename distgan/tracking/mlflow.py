"""The tracker `mlflow`: a run of MLflow, by its own variables (`MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from distgan.config.load import flatten
from distgan.errors import UserError
from distgan.tracking.scalars import images_at
from distgan.tracking.service import Point, ServiceTracker
from distgan.tracking.tracker import TrackedRun
from distgan.training.events import RunStarted

_TAG = "distgan.id"

# MLflow refuses longer values.
_MOST_LETTERS = 500

_BATCH = 100


class MlflowTracker(ServiceTracker):
    """Sends numbers, sample grids, curves and the configuration to a run of MLflow.

    Its steps are whole numbers: real images, 1,000 for a kimg.
    """

    name, title, package = "mlflow", "MLflow", "mlflow"

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._client: Any = None
        self._run = ""

    @classmethod
    def check(cls) -> None:
        super().check()
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise UserError(
                "tracking: mlflow: MLFLOW_TRACKING_URI is not set; set it to your server, as http://127.0.0.1:5000, or "
                "to a file, as sqlite:////home/me/mlflow.db"
            )

    def open(self, started: RunStarted, configuration: Mapping[str, Any]) -> int | None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        experiment = _experiment(self._client, os.environ.get("MLFLOW_EXPERIMENT_NAME", "distgan"))
        # Also that of an attempt that failed after it.
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{self.id}'")
        tags = {_TAG: self.id, "distgan.url": self.run.url}
        run = found[0] if found else self._client.create_run(experiment, tags=tags, run_name=started.name)
        self._run = run.info.run_id
        if found:
            self._client.update_run(self._run, "RUNNING")
        values = {key: str(value)[:_MOST_LETTERS] for key, value in flatten(configuration).items()}
        new = [Param(key, value) for key, value in values.items() if key not in run.data.params]
        for begin in range(0, len(new), _BATCH):
            self._client.log_batch(self._run, params=new[begin : begin + _BATCH])
        histories = (self._client.get_metric_history(self._run, name) for name in run.data.metrics)
        return max((each.step for history in histories for each in history), default=-1)

    def send(self, point: Point) -> None:
        from mlflow.entities import Metric

        step, moment = images_at(point.kimg), round(1000 * point.time)
        metrics = [Metric(name, value, moment, step) for name, value in point.values.items()]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)
        for name, picture in point.pictures.items():
            self._client.log_image(self._run, picture, key=name, step=step)

    def finish(self) -> None:
        self._client.set_terminated(self._run)


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)
