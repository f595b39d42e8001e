"""Profiles some steps: a trace, and the duration of each part of a step."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.training.events import ProfileWritten

# Steps of the session: skipped, profiler warm-up, recorded.
_WAIT, _WARM_UP, _RECORDED = 5, 2, 10

_PARTS = ("data wait", "discriminator", "generator", "optimizers", "average")

_COLLECTIVES = ("gloo:", "nccl:")

_PREFIX = "distgan: "


def span(name: str) -> record_function:
    """A named range in traces. Without a profiler it costs about a microsecond."""
    return record_function(_PREFIX + name)


class StepProfiler:
    """Records some steps of a session, and saves their trace in the run's folder as `profile/trace.json.gz`."""

    def __init__(self, run: Storage, device: torch.device, log: Callable[[str], None] = lambda _: None) -> None:
        self._storage, self._log = run.child("profile"), log
        self._parts: dict[str, float] = {}
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        steps = schedule(wait=_WAIT, warmup=_WARM_UP, active=_RECORDED, repeat=1)
        self._profiler = profile(activities=activities, schedule=steps, on_trace_ready=self._save)
        self._profiler.start()

    def step(self) -> None:
        """Marks the end of a step."""
        self._profiler.step()

    def finish(self) -> ProfileWritten:
        """Ends the profile; returns the mean durations over the recorded steps."""
        self._profiler.stop()
        return ProfileWritten(_RECORDED if self._parts else 0, self._parts, self._storage.url)

    def _save(self, profiler: profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json.gz"
            profiler.export_chrome_trace(str(file))
            trace = file.read_bytes()
        try:
            self._storage.write_bytes(file.name, trace)
        except UserError as error:
            self._log(f"{error}; the profile is not saved")
        self._parts = _parts(json.loads(gzip.decompress(trace))["traceEvents"])


def _parts(events: list[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds per step of each part, on the host or the device, whichever is longer."""
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in events:
        name, category = str(event.get("name", "")), str(event.get("cat", ""))
        if name.startswith(_COLLECTIVES):
            name = _PREFIX + "all-reduce"
        if name.startswith(_PREFIX) and "dur" in event:
            totals[name.removeprefix(_PREFIX)][category] += event["dur"] / 1000 / _RECORDED
    longest = {name: max(by_category.values()) for name, by_category in totals.items()}
    step = longest["training"]
    parts = {name: longest.get(name, 0.0) for name in _PARTS}
    return {"step": step, **parts, "rest": step - sum(parts.values()), "all-reduce": longest.get("all-reduce", 0.0)}
