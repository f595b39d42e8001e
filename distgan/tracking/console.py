"""The terminal of the person who started a run: a live panel, or plain lines."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from distgan.text import plural, printable
from distgan.tracking import formatting
from distgan.training.events import (
    EvaluationResult,
    Event,
    Notice,
    PhaseStarted,
    ProfileWritten,
    RunFinished,
    RunStarted,
    SmallDatasetWarning,
    StepMetrics,
    StopReason,
)
from distgan.training.health import HealthWarning


class Terminal(Console):
    """Rich's console for untrusted text: control characters, `[markup]` and `:emoji:` have no effect."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                lines = segment.text.split("\n")
                yield Segment("\n".join(map(printable, lines)), segment.style)


class LiveConsole:
    """The base of displays; `_live` is what a terminal shows, once there is something.

    Args:
        console: where to write; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Terminal()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def message(self, text: str) -> None:
        """Prints a line above the live part."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


_PERIODS = 3


class Eta:
    """Time left, from the budget and the recent speed, evaluations included.

    A period lasts from the end of one evaluation to the end of the next. The speed is that of the last three periods
    (or fewer), and the time left counts down until the next evaluation. Before the first period ends, the speed is that
    since the session began, or since its first evaluation.
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


@dataclass
class View:
    """The state of a run on the screen: its start, latest events, speed, and reason for the end.

    Attributes:
        began: time in seconds when the first session began.
        phase: what the run does, and since when.
        bytes_read: of the data set in this session.
    """

    started: RunStarted
    kimg: float
    eta: Eta
    began: float = 0.0
    phase: tuple[str, float] | None = None
    metrics: StepMetrics | None = None
    evaluation: EvaluationResult | None = None
    ended: StopReason | None = None
    bytes_read: float = 0.0


def render(view: View, now: float) -> RenderableType:
    """The panel: header, progress bar and latest numbers. `now` is in seconds."""
    return Group(_header(view.started), _bar(view, now), _numbers(view, now))


def _header(started: RunStarted) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for label, value in (
        ("run", Text(started.name, "bold")),
        ("workers", Text(formatting.workers(started))),
        ("networks", Text(formatting.networks(started))),
        ("data", Text(formatting.data(started), overflow="fold")),
    ):
        table.add_row(Text(label, "dim"), value)
    return table


def _bar(view: View, now: float) -> RenderableType:
    budget = view.started.budget_kimg
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row(
        ProgressBar(total=budget, completed=view.kimg, finished_style="bar.complete"),
        Text(f"{formatting.progress(view.kimg, budget)}  {view.kimg / budget:.0%}"),
        Text(_time_left(view, now), "cyan"),
    )
    return table


def _time_left(view: View, now: float) -> str:
    if view.ended is not None:
        return f"ended ({view.ended})"
    left = view.eta.seconds_left(now)
    return "time left unknown" if left is None else f"{formatting.duration(left)} left"


def next_evaluation(started: RunStarted, kimg: float) -> float | None:
    """Where the next evaluation is due, in kimg: at a multiple of its interval, or at the end of the budget."""
    every = started.evaluation_every_kimg
    if every is None or kimg >= started.budget_kimg:
        return None
    return min(started.budget_kimg, every * (math.floor(kimg / every + 1e-9) + 1))


def _now(view: View, now: float) -> str:
    """What the run does, how long it runs, and what is due next."""
    elapsed = f"{formatting.duration(now - view.began)} elapsed"
    if view.ended is not None:
        return elapsed
    if view.phase is not None:
        phase, since = view.phase
        return f"{phase} for {formatting.duration(now - since)}, {elapsed}"
    due = next_evaluation(view.started, view.kimg)
    parts = ["training", elapsed]
    if due is not None:
        left = ""
        if view.metrics is not None and view.metrics.images_per_second > 0:
            left = f" in {formatting.duration(1000 * (due - view.kimg) / view.metrics.images_per_second)}"
        parts.append(f"evaluation at {formatting.kimg_count(due)} kimg{left}")
    return ", ".join(parts)


def _numbers(view: View, now: float) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("now", "dim"), Text(_now(view, now)))
    if view.metrics is not None:
        table.add_row(Text("speed", "dim"), Text(f"{formatting.number(view.metrics.images_per_second)} images/s"))
        table.add_row(Text("losses", "dim"), _values(formatting.losses(view.metrics)))
        if found := formatting.overfitting(view.metrics):
            table.add_row(Text("overfitting", "dim"), _values(found))
        if reading := formatting.reading(view.metrics, view.bytes_read):
            table.add_row(Text("data wait", "dim"), Text("   ".join(reading)))
    event = view.evaluation
    if event is not None:
        table.add_row(Text(event.metric, "dim"), _distance(event))
    return table


def _values(values: Mapping[str, float]) -> Text:
    return Text("   ".join(f"{name} {formatting.number(value)}" for name, value in values.items()))


def _distance(event: EvaluationResult) -> Text:
    better = event.improved and not formatting.worse_than_start(event)
    now = Text(formatting.number(event.value), "bold green" if better else "bold")
    parts = [formatting.best(event)] if event.best is None else [formatting.best(event), formatting.patience(event)]
    return now + Text("".join(f"   {part}" for part in parts))


_SECONDS_BETWEEN_LINES = 5.0


class Display(LiveConsole):
    """Shows the events of a run: a live panel on a terminal, plain lines anywhere else.

    Args:
        console: where to write; standard output by default.
        clock: seconds, from any origin.

    Attributes:
        sessions: how many have begun.
        finished: when the last one ended, by the clock.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console)
        self._clock = clock
        self._view: View | None = None
        self._began = clock()
        self._last_line: float | None = None
        self.sessions, self.finished = 0, 0.0

    def event(self, event: Event) -> None:
        """Shows the event; checkpoints are not shown."""
        if isinstance(event, RunStarted):
            self.sessions += 1
            self._start(event)
        if isinstance(event, RunFinished):
            self.finished = self._clock()
        if isinstance(event, PhaseStarted) and self._view is None:
            self.message(event.text)
            return
        if isinstance(event, ProfileWritten):
            self.message(formatting.profile(event))
            return
        if isinstance(event, SmallDatasetWarning):
            self.message(f"warning: {formatting.small_dataset(event)}")
            return
        if isinstance(event, Notice):
            self.message(f"warning: {event.text}")
            return
        if isinstance(event, HealthWarning):
            self.message(f"warning: {formatting.health_warning(event)}")
            return
        assert self._view is not None, "a run's first event is RunStarted"
        self._update(self._view, event)
        if self._live is not None:
            self._live.refresh()
        else:
            self._print(self._view, event)

    def _start(self, event: RunStarted) -> None:
        before = self._view.evaluation if self._view is not None else None
        self._view = View(event, event.kimg, Eta(event.kimg, event.budget_kimg, self._clock()), self._began)
        if before is not None and before.kimg <= event.kimg:
            self._view.evaluation = before
        self._last_line = None
        if self._console.is_interactive and self._live is None:
            self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=2)
            self._live.start()

    def _update(self, view: View, event: Event) -> None:
        now = self._clock()
        view.phase = (event.text, now) if isinstance(event, PhaseStarted) else None
        if isinstance(event, StepMetrics):
            view.metrics, view.kimg = event, event.kimg
            view.bytes_read += event.measured.get("data/bytes_read", 0.0)
            view.eta.trained(event.kimg, now)
        elif isinstance(event, EvaluationResult):
            view.evaluation, view.kimg = event, event.kimg
            view.eta.evaluated(event.kimg, now)
        elif isinstance(event, RunFinished):
            view.kimg, view.ended = event.summary.kimg, event.summary.reason

    def _picture(self) -> RenderableType:
        return "" if self._view is None else render(self._view, self._clock())

    def _print(self, view: View, event: Event) -> None:
        if isinstance(event, RunStarted):
            verb = "resumed" if event.kimg else "started"
            self.message(
                f"{event.name}: {verb} at {formatting.progress(event.kimg, event.budget_kimg)}; "
                f"{formatting.workers(event)}; {formatting.networks(event)}; {formatting.data(event)}"
            )
        elif isinstance(event, PhaseStarted):
            if view.evaluation is None and event.kimg is not None:  # the session's first; its result may take long
                self.message(f"{event.text} at {formatting.kimg_count(event.kimg)} kimg begins")
        elif isinstance(event, StepMetrics):
            self._print_step(view, event)
        elif isinstance(event, EvaluationResult):
            where = f"evaluation at {formatting.kimg_count(event.kimg)} kimg"
            self.message(f"{where}: {formatting.evaluation(event)}, took {formatting.duration(event.seconds)}")
        elif isinstance(event, RunFinished):
            summary = event.summary
            self.message(
                f"{summary.name}: ended at {formatting.kimg_count(summary.kimg)} kimg, "
                f"{plural(summary.steps, 'step')}: {formatting.stop_reason(summary)}"
            )

    def _print_step(self, view: View, event: StepMetrics) -> None:
        now = self._clock()
        if self._last_line is not None and now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        left, reading = view.eta.seconds_left(now), formatting.reading(event, view.bytes_read)
        shown = formatting.losses(event) | formatting.overfitting(event)
        parts = [
            formatting.progress(event.kimg, view.started.budget_kimg),
            f"{formatting.number(event.images_per_second)} images/s",
            *(f"{name} {formatting.number(value)}" for name, value in shown.items()),
            *([f"data wait {', '.join(reading)}"] if reading else []),
        ]
        self.message(", ".join(parts + ([] if left is None else [f"{formatting.duration(left)} left"])))
