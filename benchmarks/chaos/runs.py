"""A run by a command that can be started again, and what it has trained so far."""

from __future__ import annotations

import multiprocessing.process
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.chaos.record import label, read_steps

if TYPE_CHECKING:
    from benchmarks.chaos.place import Place

Process = multiprocessing.process.BaseProcess

T = TypeVar("T")

BATCH = 16

KEYS = (
    "image_size=16", "generator.width=8", "discriminator.width=8", f"training.batch_size={BATCH}", "data.streams=16",
    "scale.groups=2", "scale.threads=1", "training.log_every=1", "evaluation.samples=64", "evaluation.at_start=false",
    f"checkpoint.every_kimg={10 * BATCH / 1000}", "checkpoint.keep_last=100000",
    "tracking=[tensorboard, 'benchmarks.chaos.worker:StepFile']",
)  # fmt: skip

_POLL_S = 0.005

# Of one round: an end by an error is followed by the same command.
_MOST_STARTS = 3


class OverdueError(Exception):
    """Something did not happen within a round's time."""


@dataclass
class Run:
    """A run of `steps` steps, a batch each.

    Attributes:
        storage: the folder of its folder.
        workers: as `--workers`.
        deadline: of all waiting, of the monotonic clock.
        exits: exit codes of the commands so far.
    """

    name: str
    place: Place
    storage: str
    steps: int
    workers: str
    deadline: float
    process: Process = field(init=False)
    exits: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.storage}/{self.name}"

    @property
    def arguments(self) -> list[str]:
        kimg = self.steps * BATCH / 1000
        keys = [f"data.url={self.place.data}", f"training.kimg={kimg}", f"evaluation.every_kimg={kimg}"]
        where = ["--name", self.name, "--storage", self.storage, *self.place.options]
        workers = ["--workers", self.workers] if self.place.state else []
        return ["train", "quickstart", *KEYS, *keys, *where, *workers]

    @property
    def parts(self) -> list[Run]:
        """The runs that it consists of."""
        return [self]

    def file(self, kind: str) -> Path:
        return self.place.folder / f"{label(self.url)}.{kind}"

    def start(self) -> None:
        self.process = self.command()

    def command(self) -> Process:
        """The command, started."""
        return self.place.start(self.arguments, self.file("log"))

    def logged(self) -> list[tuple[int, float]]:
        """Steps with their times, repeated ones again."""
        return [row for part in self.parts for row in read_steps(part.file("steps"))]

    def wait_for(self, step: int, after: int = 0) -> None:
        """Waits for this step or a later one, not counting the first `after` rows; returns where the run has ended.

        Raises OverdueError.
        """

        def there() -> bool:
            return max((number for number, _ in self.logged()[after:]), default=0) >= step

        self.wait_until(lambda: there() or self.process.exitcode is not None or None, f"step {step}")

    def wait_until(self, condition: Callable[[], T | None], what: str) -> T:
        """The condition's result once it is not None. Raises OverdueError."""
        while (found := condition()) is None:
            self._check(what)
            time.sleep(_POLL_S)
        return found

    def end(self, number: signal.Signals) -> None:
        """Sends a signal to the command and waits for its end. Raises OverdueError, also where it has ended already."""
        if self.process.exitcode is not None:
            raise OverdueError(f"{self.name}: ended with {self.process.exitcode} before; see {self.file('log')}")
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        self.wait_end()

    def wait_end(self) -> int:
        """The exit code of the command. Raises OverdueError."""
        self.process.join(max(0.0, self.deadline - time.monotonic()))
        code = self.process.exitcode
        if code is None:
            self._check("its end")
        assert code is not None
        return code

    def finish(self) -> None:
        """Waits for the run's end, and repeats the command where it ends otherwise. Raises OverdueError."""
        while True:
            self.exits.append(self.wait_end())
            if self.exits[-1] == 0:
                return
            if len(self.exits) == _MOST_STARTS:
                raise OverdueError(f"ended with the codes {self.exits}")
            self.start()

    def abandon(self) -> None:
        """Kills what is left of the command."""
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join(10)

    def _check(self, what: str) -> None:
        if time.monotonic() >= self.deadline:
            last = max((number for number, _ in self.logged()), default=0)
            raise OverdueError(f"no {what} in time, last step {last}; see {self.file('log')}")


def seconds_lost(logged: list[tuple[int, float]], fault_at: float) -> float:
    """The longest time without a new step, of that around the fault and those after it."""
    new, most = list[float](), 0
    for number, moment in logged:
        if number > most:
            most = number
            new.append(moment)
    pauses = [later - earlier for earlier, later in pairwise(new) if later >= fault_at]
    return max(pauses, default=0.0)
