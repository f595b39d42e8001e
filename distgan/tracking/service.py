"""The base of trackers that send a run to a service or tool: from a thread of their own, which may wait and retry."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar

from PIL import Image

from distgan.bounds import parse_yaml
from distgan.errors import UserError
from distgan.tracking.scalars import images_at, scalars
from distgan.tracking.tracker import TrackedRun, Tracker
from distgan.training.events import Event, RunStarted

# Points that wait for a service; older ones are dropped.
_MOST_POINTS = 10_000

# Between attempts; doubled after each.
_RETRY_S, _LONGEST_RETRY_S = 5.0, 300.0

# For the rest at the end of a run.
CLOSE_S = 30.0

_KEPT = re.compile("[0-9a-f]{1,16}")


@dataclass(frozen=True)
class Point:
    """Numbers and pictures at one place of a run.

    Attributes:
        images: real images trained; never falls from point to point. A late point, as of an asynchronous evaluation,
            has a place of its own after the newest.
        kimg: of what the numbers are about.
    """

    images: int
    kimg: float
    time: float
    values: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)


class ServiceTracker(Tracker):
    """Sends a run to a service, from a thread. Nothing that the service does ends the run or blocks a step.

    What fails is tried again, after growing pauses; points wait meanwhile. The first failure is raised by the next
    call, once, so that the run's folder logs it. `close` waits half a minute for the rest.

    A subclass has `open`, `send` and `finish`, which the thread calls, and which may raise anything. The run's id
    there is kept in the run's folder, as `NAME/id`: a resumed run goes on in the same run, and points that the service
    has are not sent again. A run that begins anew, whose earlier metrics are dropped, has a new one.

    Attributes:
        name: in the key `tracking`, and of the extra that installs `package`.
        title: the service's name in messages.
        id: of the run; the same in all its sessions.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, run: TrackedRun) -> None:
        self.check()
        super().__init__(run)
        saved, sent = (self._kept(kind) if run.first_step else None for kind in ("id", "last"))
        self.id = saved or secrets.token_hex(4)
        self._had = int(sent) if saved and sent and sent.isdigit() else -1
        self._sent = self._recorded = self._had
        self._keep("id", self.id)
        self._keep("last", str(self._had))
        self._started: RunStarted | None = None
        self._waiting: deque[Point] = deque()
        self._dropped = 0
        self._images = 0
        self._error: Exception | None = None
        self._told = False
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{self.name}", daemon=True)

    @classmethod
    def check(cls) -> None:
        if not _is_installed(cls.package):
            raise UserError(
                f"tracking: {cls.name} needs the package {cls.package}: pip install 'distgan[{cls.name}]', or leave it "
                f"out of the key tracking"
            )

    def open(self, started: RunStarted, configuration: Mapping[str, Any]) -> int | None:
        """Begins or resumes the run. Returns the images up to which it has points, if the service says so."""
        raise NotImplementedError

    def send(self, point: Point) -> None:
        """Sends a point."""
        raise NotImplementedError

    def finish(self) -> None:
        """Ends the run's session, after the last point."""

    def event(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._started = event
            self._thread.start()
        values = scalars(event)
        if values:
            self._add(values["progress/kimg"], values=values)
        self._raise_first_error()

    def samples(self, step: int, kimg: float, grid: Image.Image) -> None:
        self._add(kimg, pictures={"samples": grid})

    def flush(self) -> None:
        self._record()
        self._raise_first_error()

    def close(self) -> None:
        """Waits for the last points, half a minute at most."""
        if self._started is None:
            return
        curves = self.run.folder / "curves.png"
        if curves.is_file():
            with Image.open(curves) as picture:
                self._add(self._images / 1000, pictures={"curves": picture.copy()})
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(CLOSE_S)
        self._record()
        left = len(self._waiting) + self._dropped
        if left and self._error is None:
            self._error = TimeoutError(f"{left:,} points are not sent")
        self._raise_first_error()

    def _add(
        self,
        kimg: float,
        values: Mapping[str, float] | None = None,
        pictures: Mapping[str, Image.Image] | None = None,
    ) -> None:
        here = images_at(kimg)
        self._images = here if here >= self._images else self._images + 1
        point = Point(self._images, kimg, time.time(), values or {}, pictures or {})
        with self._changed:
            if len(self._waiting) == _MOST_POINTS:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(point)
            self._changed.notify()
        self._record()

    def _record(self) -> None:
        """Keeps in the run's folder how far the service has the run."""
        sent = max(self._sent, self._had)
        if sent != self._recorded:
            self._keep("last", str(sent))
            self._recorded = sent

    def _keep(self, kind: str, value: str) -> None:
        self.run.write(f"{self.name}/{kind}", f"{value}\n".encode())

    def _kept(self, kind: str) -> str | None:
        """What an earlier session has kept; None for what none has written."""
        found = (self.run.read(f"{self.name}/{kind}") or b"").decode(errors="replace").strip()
        return found if _KEPT.fullmatch(found) else None

    def _raise_first_error(self) -> None:
        if self._error is not None and not self._told:
            self._told = True
            reason = " ".join(f"{type(self._error).__name__}: {self._error}".split())
            raise UserError(f"{self.title} does not take the run ({reason:.300})")

    def _work(self) -> None:
        started = self._started
        assert started is not None
        configuration = parse_yaml(started.configuration)

        def begin() -> None:
            found = self.open(started, configuration if isinstance(configuration, Mapping) else {})
            self._had = found if found is not None else self._had

        working = self._try(begin)
        while working:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
                if not self._waiting:
                    break
                point = self._waiting[0]
            working = point.images <= self._had or self._try(lambda point=point: self.send(point))  # type: ignore[misc]
            with self._changed:
                if working and self._waiting and self._waiting[0] is point:
                    self._waiting.popleft()
                    self._sent = point.images
        if working:
            self._try(self.finish)

    def _try(self, action: Callable[[], None]) -> bool:
        """Repeats what fails until it succeeds; False where it still fails at the end of the run."""
        pause = _RETRY_S
        while True:
            last = self._closing.is_set()
            try:
                action()
            except Exception as error:  # noqa: BLE001 - the run's folder logs it; training continues
                self._error = self._error or error
                if last:
                    return False
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_RETRY_S)
            else:
                return True


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module without a specification
        return False
