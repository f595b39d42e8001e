"""What the terminal of the person who started a run shows."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from distgan.health.states import Warned
from distgan.report import words
from distgan.report.pace import Pace
from distgan.report.panel import View, render
from distgan.report.screen import Screen
from distgan.training.events import Evaluated, Event, FewImages, Finished, Notice, Profiled, Started, Trained

_SECONDS_BETWEEN_LINES = 5.0


class Display(Screen):
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
        self._last_line: float | None = None
        self.sessions, self.finished = 0, 0.0

    def event(self, event: Event) -> None:
        """Show the event; a checkpoint is not shown."""
        if isinstance(event, Started):
            self.sessions += 1
            self._start(event)
        if isinstance(event, Finished):
            self.finished = self._clock()
        if isinstance(event, Profiled):
            self.message(words.profile(event))
            return
        if isinstance(event, FewImages):
            self.message(f"warning: {words.few_images(event)}")
            return
        if isinstance(event, Notice):
            self.message(f"warning: {event.text}")
            return
        if isinstance(event, Warned):
            self.message(f"warning: {words.ill_health(event)}")
            return
        assert self._view is not None, "a run's first event is Started"
        self._update(self._view, event)
        if self._live is not None:
            self._live.refresh()
        else:
            self._print(self._view, event)

    def _start(self, event: Started) -> None:
        before = self._view.evaluated if self._view is not None else None
        self._view = View(event, event.kimg, Pace(event.kimg, event.budget_kimg, self._clock()))
        if before is not None and before.kimg <= event.kimg:
            self._view.evaluated = before
        self._last_line = None
        if self._console.is_interactive and self._live is None:
            self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=2)
            self._live.start()

    def _update(self, view: View, event: Event) -> None:
        now = self._clock()
        if isinstance(event, Trained):
            view.trained, view.kimg = event, event.kimg
            view.pace.trained(event.kimg, now)
        elif isinstance(event, Evaluated):
            view.evaluated, view.kimg = event, event.kimg
            view.pace.evaluated(event.kimg, now)
        elif isinstance(event, Finished):
            view.kimg, view.ended = event.summary.kimg, event.summary.reason

    def _picture(self) -> RenderableType:
        return "" if self._view is None else render(self._view, self._clock())

    def _print(self, view: View, event: Event) -> None:
        if isinstance(event, Started):
            verb = "resumed" if event.kimg else "started"
            self.message(
                f"{event.name}: {verb} at {words.progress(event.kimg, event.budget_kimg)}; "
                f"{words.setting(event)}; {words.networks(event)}; {words.data(event)}"
            )
        elif isinstance(event, Trained):
            self._print_trained(view, event)
        elif isinstance(event, Evaluated):
            where = f"evaluation at {words.kimg_count(event.kimg)} kimg"
            self.message(f"{where}: {words.evaluation(event)}, took {words.duration(event.seconds)}")
        elif isinstance(event, Finished):
            summary = event.summary
            self.message(
                f"{summary.name}: ended at {words.kimg_count(summary.kimg)} kimg, "
                f"{words.plural(summary.steps, 'step')}: {words.stop_reason(summary)}"
            )

    def _print_trained(self, view: View, event: Trained) -> None:
        now = self._clock()
        if self._last_line is not None and now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        left = view.pace.seconds_left(now)
        parts = [
            words.progress(event.kimg, view.started.budget_kimg),
            f"{words.number(event.images_per_second)} images/s",
            *(f"{name} {words.number(value)}" for name, value in words.losses(event).items()),
        ]
        self.message(", ".join(parts + ([] if left is None else [f"{words.duration(left)} left"])))
