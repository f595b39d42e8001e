"""Where the time of a step goes: by span in a trace of torch's profiler, and the host's random numbers."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from distgan.losses.context import Context
from distgan.training.profiling import span

_PREFIX = "distgan: "

_STEP = "step"

# Its host time, and what is launched outside of all other spans.
REST = "rest"

# Copies from the host to the device, wherever they are started.
COPY = "data copy"

_ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}

_LAUNCHES = {"cuda_runtime", "cuda_driver"}

Event = dict[str, Any]


def profiled(step: Callable[[], object], steps: int, device: torch.device) -> list[Event]:
    """The events of the trace of so many steps, each in a span `step`."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities, profile_memory=not gpu) as profiler:
        for _ in range(steps):
            with span(_STEP):
                step()
        if gpu:
            torch.cuda.synchronize()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events: list[Event] = json.loads(file.read_text())["traceEvents"]
    return events


def phases(events: Sequence[Event], steps: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step by span, `host_ms` and `device_ms`; a span has its own time, without that of inner ones.

    Work of the device belongs to the innermost span in which it was launched, by whichever thread, as the backward
    pass launches from a thread of its own.
    """
    spans = sorted((e["ts"], e["ts"] + e["dur"], _name(e)) for e in events if _is_span(e))
    found: dict[str, dict[str, float]] = {}

    def add(name: str, kind: str, microseconds: float) -> None:
        of = found.setdefault(name, {"host_ms": 0.0, "device_ms": 0.0})
        of[kind] += microseconds / 1000 / steps

    for begin, end, name in spans:
        add(name, "host_ms", end - begin)
        if (outer := _innermost(spans, begin, end)) is not None:
            add(outer, "host_ms", begin - end)
    launched: dict[Any, float] = {_correlation(e): e["ts"] for e in events if e.get("cat") in _LAUNCHES}
    for event in events:
        if event.get("cat") in _ON_DEVICE:
            begin = launched.get(_correlation(event), float(event["ts"]))
            copy = "HtoD" in str(event.get("name"))
            add(COPY if copy else _innermost(spans, begin, begin) or REST, "device_ms", event["dur"])
    return found


def peak_bytes(events: Sequence[Event]) -> int:
    """The most that is allocated on the CPU at one time during the steps, beside what was there before."""
    found = [e["args"] for e in events if e.get("name") == "[memory]"]
    if not found:
        return 0
    before = found[0]["Total Allocated"] - found[0]["Bytes"]
    return int(max(each["Total Allocated"] for each in found) - before)


def host_draws(step: Callable[[], object]) -> dict[str, float]:
    """How many times a step draws random numbers on the host, and the milliseconds that this takes by itself."""
    with _noted_draws() as calls:
        step()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        for call in calls:
            call()
        times.append(time.perf_counter() - begin)
    return {"count": len(calls), "ms": 1000 * statistics.median(times)}


@contextmanager
def _noted_draws() -> Iterator[list[Callable[[], object]]]:
    """Inside, each draw of a `Context` is noted, to be repeated without copying its numbers to a device."""
    calls: list[Callable[[], object]] = []

    def noting(original: Callable[..., object]) -> Callable[..., object]:
        def method(context: Context, *arguments: Any) -> object:
            calls.append(partial(original, replace(context, device=torch.device("cpu")), *arguments))
            return original(context, *arguments)

        return method

    with ExitStack() as stack:
        for name in ("uniform", "normal", "seed_layers"):
            stack.enter_context(mock.patch.object(Context, name, noting(getattr(Context, name))))
        yield calls


def _innermost(spans: Sequence[tuple[float, float, str]], begin: float, end: float) -> str | None:
    """The name of the shortest span around a time, other than exactly that time."""
    around = [(b - a, name) for a, b, name in spans if a <= begin and end <= b and (a, b) != (begin, end)]
    return min(around)[1] if around else None


def _is_span(event: Event) -> bool:
    return event.get("cat") == "user_annotation" and str(event.get("name")).startswith(_PREFIX)


def _name(event: Event) -> str:
    name = str(event["name"]).removeprefix(_PREFIX)
    return REST if name == _STEP else name


def _correlation(event: Event) -> Any:
    return event.get("args", {}).get("correlation")
